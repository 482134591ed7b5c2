"""The command lines of the READMEs, each run in a process of its own on small logs.

What a README calls DATA or RUN is named in one folder here, and sizes are small: `WALK` has every
command line of theirs beside the one that is run for it, in an order in which they can be run.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest

from sitn_tf import schema
from tests.benchmarks import movielens
from tests.drills.serving_process import serving

ROOT = pathlib.Path(__file__).parents[1]
READMES = [ROOT / folder / "README.md" for folder in (".", "export/serving")]

TINY = "--preset=tiny --set=contrast.granularities=4"
LOGS = " ".join(
    f"--{domain}_log=logs/{domain}.jsonl.gz --{domain}_items=logs/{domain}_items.jsonl.gz"
    for domain in schema.DOMAINS
)
FORMAT = "--label_field=click --request_field=request_id --score_field=score --shards=2"
STUDY = f"--study=table2 --arms=sitn,fm --seeds=1 --data_dir=data --workdir=study {TINY}"

WALK = {
    "pipelines.synthetic": "--output=logs --users=60",
    "pipelines.build_dataset": f"{LOGS} {FORMAT} --hash_user_ids=key --output=data",
    "pipelines.verify --data_dir=DATA": "--data_dir=data --hash_user_ids=key",
    "pipelines.replay": "--data_dir=data --output=again",
    "pipelines.hash_user_ids --hash_user_ids=KEYFILE": "--hash_user_ids=key",
    "sitn_tf.train --stage=1": f"--stage=1 --data_dir=data --workdir=run {TINY}",
    "sitn_tf.train --stage=1 --data_dir=DATA --workdir=RUN": (
        f"--stage=1 --data_dir=data --workdir=run {TINY}"
    ),
    "sitn_tf.train --stage=2": f"--stage=2 --data_dir=data --workdir=run {TINY}",
    "sitn_tf.evaluate": "--run_dir=run/stage2",
    "sitn_tf.experiments --study=table2 --data_dir=DATA --workdir=STUDY --trials=20 --seeds=5 "
    "--jobs=2": f"{STUDY} --trials=1 --jobs=2",
    "sitn_tf.experiments --study=table2": f"{STUDY} --trials=1",
    "sitn_tf.experiments --study=table2 --split=test": f"{STUDY} --trials=1 --split=test",
    "sitn_tf.report": "--run_dir=run/stage2 --run_dir=study/fm/0/stage2",
    "sitn_tf.report --run_dir=RUN/stage2 --run_dir=OTHER/stage2": (
        "--run_dir=run/stage2 --run_dir=study/fm/0/stage2"
    ),
    "sitn_tf.interests --run_dir=RUN/stage1": "--run_dir=run/stage1",
    "sitn_tf.sizing --servers=2": "--servers=2",
    "tests.benchmarks.movielens --output=ml-1m": "--output=ml-1m --wheel=wheel.zip",
    "export.export_model": "--run_dir=moved/stage2 --output=servable",
    "export.verify": "--servable=servable",
    "export.client --golden=quickstart/servable/1": (
        "--golden=servable/1 --address=ADDRESS --deadline=60"
    ),
    "export.score_batch": (
        "--servable=servable/1 --output=scores/S "
        f"--input='data/stage2/{schema.records_name(schema.STAGE2)}-test.tfrecord-*'"
    ),
    "export.vectors": "--run_dir=moved/stage1 --output=vectors",
    "export.export_model --run_dir=quickstart/sitn/stage2 --output=quickstart/servable "
    "--calibrate=platt --allow_drift": (
        "--run_dir=moved/stage2 --output=servable --calibrate=platt --allow_drift"
    ),
    "export.versions --servable=quickstart/servable --check": "--servable=servable --check",
    "export.versions --servable=SERVABLE --check": "--servable=servable --check",
    "export.versions --servable=quickstart/servable --rollback": "--servable=servable --rollback",
    "export.versions --servable=SERVABLE --rollback": "--servable=copied --rollback",
    "export.versions --servable=SERVABLE --prune": "--servable=servable --prune",
}
"""A command line of a README, after `python -m`, and the flags it is given here."""

_CLUSTER = "--source_log=gs://... --target_log=gs://... --output=gs://... --shards=..."
_EXTERNAL = "--environment_type=EXTERNAL --environment_config=localhost:50000"
ELSEWHERE = {
    f"pipelines.build_dataset {_CLUSTER} --runner=DataflowRunner --project=... --region=... "
    "--temp_location=gs://... --setup_file=./setup.py": "tests/pipelines/job/test_dataflow.py",
    f"pipelines.build_dataset ... --runner=FlinkRunner --flink_master=HOST:8081 {_EXTERNAL}": (
        "tests/pipelines/engines/test_flink.py"
    ),
    "apache_beam.runners.worker.worker_pool_main --service_port=50000": (
        "tests/pipelines/processes.py"
    ),
    "tests.benchmarks.serving --servers=HOST:PORT,HOST:PORT": "tests/export/test_benchmark.py",
}
"""Those that need programs of others or two servers, and where they are tried."""

NOWHERE = {
    "pipelines.build_dataset ... --runner=SparkRunner --spark_master_url=spark://HOST:7077 "
    f"{_EXTERNAL}",
}
"""Those that are not tried, of which README says so."""

_FENCED = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_FLAG = re.compile(r"--(\w+)")
_PROGRESS = re.compile(r"\d+%\||^\d+ s: |^[\d,]+ of [\d,]+ users|^\s*$")


def command_lines(text: str) -> set[str]:
    """The command lines of a README's shell blocks and code spans, without `python -m`."""
    blocks = "".join(_FENCED.findall(text)).replace("\\\n", " ")
    found = re.findall(r"python -m ([^#\n]+)", blocks)
    found += re.findall(r"`[^`]*?python -m ([^`]+)`", _FENCED.sub("", text))
    return {" ".join(line.split()) for line in found}


def run(folder: pathlib.Path, line: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """As a user's shell runs it, whose environment has nothing for TensorFlow."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-m", *shlex.split(line)],
        cwd=folder,
        env={**bare, "PYTHONPATH": str(ROOT)},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


def noise(stderr: str) -> list[str]:
    """What is neither an error nor progress."""
    return [line for line in stderr.splitlines() if not _PROGRESS.search(line)]


def test_command_lines_are_found_in_blocks_and_in_prose():
    text = (
        "Run `echo 7 | python -m a.b\n--c=1`, `no` python -m d, or\n\n"
        "```sh\nX=1 python -m e.f --g   # h\n\npython -m i \\\n    --j\n```\n"
    )
    assert command_lines(text) == {"a.b --c=1", "e.f --g", "i --j"}


def test_every_command_line_is_in_the_walk():
    named = set.union(*(command_lines(path.read_text()) for path in READMES))
    assert named == WALK.keys() | ELSEWHERE.keys() | NOWHERE
    assert all((ROOT / path).is_file() for path in ELSEWHERE.values())


@pytest.mark.parametrize("line", WALK)
def test_the_walk_gives_the_flags_that_the_readme_does(line):
    assert set(_FLAG.findall(line)) <= set(_FLAG.findall(WALK[line]))


@pytest.mark.slow
def test_every_command_line_does_its_work(tmp_path):
    """It ends well, and nothing but its own words reaches the screen.

    Half-way the run directory moves. A finished run given again says so.
    """
    (tmp_path / "key").write_text("a key that nobody else has\n")
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as wheel:
        films = "item_id:token\tgenre:token_seq\n1\tDrama\n2\tComedy\n"
        ratings = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        wheel.writestr(f"{movielens.FOLDER}.item", films)
        wheel.writestr(f"{movielens.FOLDER}.inter", f"{ratings}1\t1\t5\t9\n1\t2\t4\t8\n")
    said = {}
    for line, flags in WALK.items():
        command = f"{line.split()[0]} {flags}"
        if "ADDRESS" in flags:
            with serving(tmp_path / "servable") as server:
                done = run(tmp_path, command.replace("ADDRESS", server.address))
        else:
            done = run(tmp_path, command, typed="u1\n")
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert noise(done.stderr) == [], command
        assert done.stdout, command
        said[line] = done.stdout
        if "sitn_tf.interests" in line:
            (tmp_path / "run").rename(tmp_path / "moved")
        if "--allow_drift" in flags:
            shutil.copytree(tmp_path / "servable", tmp_path / "copied")
    moved = run(tmp_path, f"sitn_tf.train --stage=2 --data_dir=data --workdir=moved {TINY}")
    finished = {
        "run/stage1": said["sitn_tf.train --stage=1 --data_dir=DATA --workdir=RUN"],
        "moved/stage2": moved.stdout,
    }
    for run_dir, told in finished.items():
        assert f"{run_dir} is finished already" in told
        assert "wrote" not in told
