"""The same data whatever runs the job, and whole or not at all whatever stops it."""

import collections
import pathlib
import re
import subprocess
import sys
import time

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import build_dataset, verify
from pipelines.job import inputs, parse_steps, progress, shard_steps, shuffle
from pipelines.job import run as job_run
from pipelines.job.workspace import Work
from pipelines.logs.log_format import LogFormat
from pipelines.options import Job
from pipelines.records import shards, stage_records
from sitn_tf import locks, schema
from sitn_tf.errors import InputError
from tests.pipelines import processes, runner_logs
from tests.pipelines.runner_logs import flags
from tests.ports import free_port

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runner_logs.write(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def in_memory(folder):
    return build_dataset.run(flags(folder, folder / "in_memory"))


def test_direct_runner_is_the_local_one(folder, in_memory):
    manifest = build_dataset.run(
        flags(folder, folder / "direct", "--runner=DirectRunner", "--shuffle=beam")
    )
    assert manifest.dataset_hash == in_memory.dataset_hash
    assert manifest.lines == in_memory.lines
    assert (in_memory.options["shuffle"], manifest.options["shuffle"]) == ("files", "beam")


@pytest.mark.parametrize(
    ("workers", "shuffle"),
    [
        pytest.param(1, "files", marks=pytest.mark.slow),
        pytest.param(2, "files", marks=pytest.mark.slow),
        pytest.param(2, "beam", marks=pytest.mark.slow),
        pytest.param(3, "beam", marks=pytest.mark.slow),
    ],
)
def test_processes_give_the_same(folder, in_memory, tmp_path, workers, shuffle):
    manifest = build_dataset.run(
        flags(folder, tmp_path / "out", "--direct_running_mode=multi_processing",
              f"--direct_num_workers={workers}", f"--shuffle={shuffle}")
    )  # fmt: skip
    assert manifest.dataset_hash == in_memory.dataset_hash
    assert manifest.lines == in_memory.lines


SHUFFLES = pytest.mark.parametrize(
    "shuffle", ["beam", pytest.param("files", marks=pytest.mark.slow)]
)


@SHUFFLES
def test_threads_give_the_same(folder, in_memory, tmp_path, shuffle):
    manifest = build_dataset.run(
        flags(folder, tmp_path / "out", "--direct_running_mode=multi_threading",
              "--direct_num_workers=3", f"--shuffle={shuffle}")
    )  # fmt: skip
    assert manifest.dataset_hash == in_memory.dataset_hash


def test_blocks_and_order_of_files_do_not_matter(folder, in_memory):
    manifest = build_dataset.run(
        flags(folder, folder / "blocks", "--block_bytes=700", "--shuffle=beam")
    )
    assert manifest.dataset_hash == in_memory.dataset_hash


def contents(data_dir, manifest):
    """The bytes of each stage and split, file after file."""
    found = collections.defaultdict(bytes)
    for name in sorted(manifest.shards):
        found[name.split("-")[:-3][0], name.split("-")[1]] += (data_dir / name).read_bytes()
    return found


def test_shards_share_files_and_long_files_are_divided(folder, in_memory, tmp_path, monkeypatch):
    """The same records in the same order in other files, and verification knows whose they are."""
    monkeypatch.setattr(shard_steps, "MOST_BYTES", 25_000)
    monkeypatch.setattr(stage_records, "CHUNK", 20)
    output = tmp_path / "out"
    manifest = build_dataset.run(flags(folder, output, "--record_files=2", "--shuffle=beam"))
    assert contents(output, manifest).keys() == contents(folder / "in_memory", in_memory).keys()
    assert manifest.options["record_files"] == 2
    of_train = sorted(output.glob(schema.shard_glob("stage2", "train")))
    assert len(of_train) > 2
    assert all(path.stat().st_size <= 25_000 for path in of_train)
    assert len(list(output.glob(schema.shard_glob("stage1", "train")))) == 2
    assert contents(output, manifest) == contents(folder / "in_memory", in_memory)
    assert verify.Verifier(str(output)).verify(with_logs=True).wrong == {}


def test_files_are_of_the_size_of_what_is_expected():
    def job(**options):
        return Job(logs={}, output="out", **options)

    gib = 1 << 30
    assert shard_steps.count_groups(5 * gib, job(shards=16)) == 16
    assert shard_steps.count_groups(gib, job(shards=400)) == 16
    assert shard_steps.count_groups(5 * gib, job(shards=400)) == 40  # of 128 MiB
    assert shard_steps.count_groups(500 * gib, job(shards=400)) == 400
    assert shard_steps.count_groups(5 * gib, job(shards=400, record_files=7)) == 7
    groups = [shards.group_of(shard, 10, 4) for shard in range(10)]
    assert groups == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


@pytest.fixture
def portable(tmp_path):
    """Flags of Beam's job server, whose workers are another environment's processes."""
    home, port = tmp_path / "environment", free_port()
    processes.environment(home, [*processes.packages(), str(ROOT)])
    server = [
        sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main",
        f"--job_port={port}", f"--staging_dir={tmp_path}/staging",
    ]  # fmt: skip
    with (
        processes.running(server, tmp_path, tmp_path / "server.log", {}) as process,
        processes.worker_pool(home, tmp_path) as pool,
    ):
        processes.wait_for(port, process)
        yield ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", *pool.flags()]


@SHUFFLES
def test_portable_runner_gives_the_same(folder, in_memory, portable, tmp_path, shuffle):
    asked = [] if shuffle == "beam" else [f"--shuffle={shuffle}"]  # beam is the default
    manifest = build_dataset.run(flags(folder, tmp_path / "out", *portable, *asked))
    assert manifest.dataset_hash == in_memory.dataset_hash
    assert manifest.options["shuffle"] == shuffle


@pytest.mark.slow
def test_an_error_in_a_portable_worker_is_one_line(folder, tmp_path, portable):
    with pytest.raises(InputError, match="lines of the source log were rejected, more than"):
        build_dataset.run(flags(folder, tmp_path / "out", "--user_field=who", *portable))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("how", ["files", "beam"])
def test_a_retried_bundle_does_no_harm(folder, in_memory, monkeypatch, tmp_path, how):
    """Every bundle of the heavy steps is run twice; only the second run's output counts."""
    job = build_dataset.run  # the flags are read afresh in each run

    def twice(method):
        def process(*arguments):
            list(method(*arguments))
            yield from method(*arguments)

        return process

    monkeypatch.setattr(parse_steps, "parse_log", twice(parse_steps.parse_log))
    monkeypatch.setattr(shuffle, "spill", twice(shuffle.spill))
    monkeypatch.setattr(
        shard_steps.WriteRecords, "process", twice(shard_steps.WriteRecords.process)
    )
    manifest = job(flags(folder, tmp_path / "out", f"--shuffle={how}"))
    assert manifest.dataset_hash == in_memory.dataset_hash
    assert manifest.lines == in_memory.lines


def test_events_travel_in_few_messages_and_once(monkeypatch):
    """A bundle of 40 blocks in windows of about four; the first attempt ends half-way."""
    monkeypatch.setattr(shuffle, "WINDOW_BYTES", 4000)
    log = LogFormat().schema
    blocks = [
        shuffle.BlockEvents("source", (0, i), pa.Table.from_pylist(
            [{"user": f"u{u}", "item": "i", "time": i, "clicked": True} for u in range(60)],
            schema=log,
        ))
        for i in range(40)
    ]  # fmt: skip
    send = shuffle._Send(3)
    for attempt in (blocks[:2], blocks):
        send.start_bundle()
        made = [one for block in attempt for one in send.process(block)]
    made += [one.value for one in send.finish_bundle()]
    windows = sum(block.events.nbytes for block in blocks) / 4000 + 1
    assert len(made) <= 3 * windows < 40
    events = [shards.of_message(message, log) for _, (_, message) in made]
    assert sum(map(len, events)) == 40 * 60
    assert all(
        (shards.shard_of_users(table["user"].combine_chunks(), 3) == shard).all()
        for (shard, _), table in zip(made, events, strict=True)
    )


def test_shuffle_by_runner():
    assert shuffle.settled("auto", "FnApiRunner") == "files"
    assert {shuffle.settled("auto", f"{name}Runner") for name in ("Flink", "Dataflow")} == {"beam"}
    assert shuffle.settled("files", "FlinkRunner") == "files"


def command(folder, output, *more):
    return [sys.executable, "-m", "pipelines.build_dataset", *flags(folder, output, *more)]


@pytest.mark.parametrize(
    "stop_at",
    [
        pytest.param("parsed-", marks=pytest.mark.slow),
        pytest.param("sorted-", marks=pytest.mark.slow),
        "stage2-",
    ],
)
def test_killed_anywhere_leaves_none_and_can_be_run_again(folder, in_memory, tmp_path, stop_at):
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(folder, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    while process.poll() is None and not list(tmp_path.glob(f"out.tmp-*/work/{stop_at}*")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (output / schema.MANIFEST_FILE).exists()
    assert list(tmp_path.glob("out.tmp-*"))  # what the killed run left
    manifest = build_dataset.run(flags(folder, output))
    assert manifest.dataset_hash == in_memory.dataset_hash
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_while_replacing_puts_the_old_one_back(folder, tmp_path):
    (tmp_path / "out.old-0123abcd").mkdir()
    (tmp_path / "out.old-0123abcd" / "mine").write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        build_dataset.run(flags(folder, tmp_path / "out"))
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_a_running_job_is_left_alone(folder, tmp_path):
    staging = tmp_path / "out.tmp-0123abcd"
    staging.mkdir()
    with (
        locks.held(tmp_path / ".out.lock", "output"),
        pytest.raises(InputError, match=rf"output={tmp_path}/out is being written by process"),
    ):
        build_dataset.run(flags(folder, tmp_path / "out"))
    assert staging.exists()


def dataflow_flags():
    return [
        "--runner=DataflowRunner", "--project=some-project", "--region=us-central1",
        "--temp_location=gs://some-bucket/temp", f"--setup_file={ROOT}/setup.py",
    ]  # fmt: skip


def test_worker_processes_say_nothing_where_nothing_is_wrong(folder, in_memory, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.build_dataset", *flags(folder, tmp_path / "out"),
         "--direct_running_mode=multi_processing", "--direct_num_workers=2", "--shuffle=beam"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if not re.match(r"\d+ s: ", line)]
    assert said == []
    assert schema.read_manifest(tmp_path / "out").dataset_hash == in_memory.dataset_hash


def test_dataflow_flags_pass_through():
    options = build_dataset.beam_options(dataflow_flags()).get_all_options()
    assert options["runner"] == "DataflowRunner"
    assert options["setup_file"] == f"{ROOT}/setup.py"


def test_pipeline_travels_as_a_proto(folder, tmp_path):
    """What any remote runner gets: the whole job, and nothing that it can't import."""
    job = build_dataset.job_of(flags(folder, tmp_path / "out", "--shuffle=beam"))
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    job_run.add_to(pipeline, Work(job, str(tmp_path)), inputs.plan(job))
    proto = pipeline.to_runner_api()
    assert b"__main__" not in proto.SerializeToString()
    assert proto.ByteSize() < 1 << 20
    names = {t.unique_name for t in proto.components.transforms.values()}
    assert {"Build/ParseLog", "Build/Sort", "Build/Records"} <= {
        "/".join(name.split("/")[:2]).split("(")[0] for name in names
    }


def test_progress_tells_what_is_there():
    found = [("w/parsed-source-0-0-ab", 3 << 20), ("w/parsed-target-0-0-cd", 1 << 20),
             ("w/sorted-source-1-ef", 5), ("w/sorted-target-1-ab", 1 << 20)]  # fmt: skip
    line = progress.line(found, 40, 16, 2.0)
    assert line == "2 s: 2 of 40 blocks parsed (2.0 MB/s), 1 of 16 shards sorted (0.5 MB/s)"
    assert progress.line([], 40, 16, 2.0) == "2 s: starting"
