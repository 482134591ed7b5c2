"""kill -9 of workers and parameter servers while they train both stages, then what serving gets.

    python -m tests.drills.servers [--users=4000] [--folder=FOLDER]

The quickstart's logs and data set; two servers, two workers and a chief on loopback, tables cut
however small they are. Survived: a worker that is killed is replaced, and each epoch learns every
record; a server that is killed ends the run with a line that names it, and the same command goes
on; what came of it is evaluated, exported and verified.
"""

import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from absl import flags

from sitn_tf import cli, runs, schema
from tests.drills import programs
from tests.drills.outcome import Outcome
from tests.drills.programs import Command
from tests.sitn_tf.distributed.processes import TRAIN, Cluster

FLAGS = flags.FlagValues()
_USERS = flags.DEFINE_integer("users", 4000, "Of the logs.", 1, flag_values=FLAGS)
_FOLDER = flags.DEFINE_string(
    "folder", None, "To keep; its data set is not made again.", flag_values=FLAGS
)

# A worker that is started again comes back before the chief has ended.
SETTINGS = ("--set=stage1.epochs=12", "--set=stage2.epochs=6", "--set=stage2.race_steps=0")
LONGEST = 3600.0
"""Seconds that a stage may take."""

AGAIN = "python -m tests.drills.servers"


def main(_: list[str]) -> int:
    """Prints each outcome as it comes; the status is 1 where something was lost."""
    with tempfile.TemporaryDirectory(prefix="servers_") as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary).resolve()
        found = []
        for outcome in lose(folder, _USERS.value):
            print(
                f"{outcome.fault}: {outcome.survived} of {outcome.tried}", *outcome.lost, sep="\n"
            )
            found.append(outcome)
    return 1 if any(outcome.lost for outcome in found) else 0


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """A row a kill; none in the short drill, which has no time for five processes."""
    return iter(()) if short else lose(folder, 4000)


def lose(folder: pathlib.Path, users: int) -> Iterator[Outcome]:
    """A worker in stage 1, a server and a worker in stage 2, and then the way to serving."""
    data_dir = folder / "data"
    if not (data_dir / schema.MANIFEST_FILE).is_file():
        _make(folder, users)
    for name in ("run", "servable", "stage1", "stage2", "stage2-again"):
        shutil.rmtree(folder / name, ignore_errors=True)
    one, two = (
        (TRAIN, f"--stage={n}", f"--data_dir={data_dir}", f"--workdir={folder}/run", *SETTINGS)
        for n in (1, 2)
    )
    yield _outcome("a worker of two, stage 1", _lose_worker(folder / "stage1", one, r"epoch +1 "))
    yield _outcome("a parameter server of two, stage 2", _lose_server(folder / "stage2", two))
    continued = _lose_worker(folder / "stage2-again", two, r"(?s)continuing .*epoch +\d+  auc")
    yield _outcome("a worker of two, stage 2 continued", continued)
    for stage in (schema.STAGE1, schema.STAGE2):
        yield _outcome(f"records learned, {stage}", _not_learned(folder / "run" / stage))
    run_dir, servable = f"--run_dir={folder}/run/stage2", folder / "servable"
    for command in (
        Command("sitn_tf.evaluate", (run_dir,)),
        Command("export.export_model", (run_dir, f"--output={servable}")),
        Command("export.verify", (f"--servable={servable}",)),
    ):
        ended = programs.run(command, folder)
        print(ended.out, flush=True)
        yield Outcome(
            f"trained on servers: {command.module}",
            1,
            (f"status {ended.status}: {ended.err[-500:]} ({AGAIN})",) if ended.status else (),
        )


def _make(folder: pathlib.Path, users: int) -> None:
    """Logs and data set with the quickstart's flags."""
    folder.mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    given = [
        f"--{domain}_{kind}={logs}/{domain}{name}.jsonl.gz"
        for domain in schema.DOMAINS
        for kind, name in (("log", ""), ("items", "_items"))
    ]
    columns = ("--label_field=click", "--request_field=request_id", "--score_field=score")
    for command in (
        Command("pipelines.synthetic", (f"--users={users}", f"--output={logs}")),
        Command("pipelines.build_dataset", (*given, *columns, f"--output={folder}/data")),
    ):
        ended = programs.run(command, folder)
        if ended.status:
            raise RuntimeError(f"{command} ended with {ended.status}: {ended.out}{ended.err}")


def _outcome(what: str, lost: str) -> Outcome:
    return Outcome(f"kill -9: {what}", 1, (f"{lost} ({AGAIN})",) if lost else ())


def _cluster(folder: pathlib.Path) -> Cluster:
    return Cluster(folder, ps=2, worker=2, chief=1)


def _lose_worker(folder: pathlib.Path, command: tuple[str, ...], when: str) -> str:
    """Kills worker 1 once the chief has said something, and starts it again; what was lost."""
    with _cluster(folder) as cluster:
        cluster.start_all(*command)
        cluster.wait_for(when, seconds=LONGEST)
        cluster.kill("worker", 1)
        cluster.start("worker", 1, *command)
        statuses = cluster.wait(LONGEST)
        said = cluster.said("chief")
    if any(statuses.values()):
        return f"statuses {statuses}: {said[-500:]}"
    served = (folder / "worker-1.txt").read_text()
    ended = re.findall(r"(?m)^the chief has ended", served)
    return "" if len(ended) == 1 else f"the new worker said {served[-500:]!r}"


def _lose_server(folder: pathlib.Path, command: tuple[str, ...]) -> str:
    """Kills server 1 after the first epoch; what was wrong with the end."""
    with _cluster(folder) as cluster:
        cluster.start_all(*command)
        cluster.wait_for(r"epoch +1  auc", seconds=LONGEST)
        cluster.kill("ps", 1)
        statuses = cluster.wait(LONGEST)
        said, address = cluster.said("chief"), cluster.addresses["ps"][1]
    expected = {"ps": (0, -9), "worker": (0, 0), "chief": (cli.USER_ERROR_STATUS,)}
    if statuses != {(job, n): s for job, of in expected.items() for n, s in enumerate(of)}:
        return f"statuses {statuses}: {said[-500:]}"
    errors = re.findall(r"(?m)^error: .*$", said)
    if "Traceback" in said or len(errors) != 1 or address not in errors[0]:
        return f"the chief said {said[-500:]!r}"
    return ""


def _not_learned(run_dir: pathlib.Path) -> str:
    """What is wrong with the number of records of an epoch."""
    whole = runs.read_manifest(run_dir).records[run_dir.name][schema.TRAIN]
    found = {entry["records"] for entry in runs.read_history(run_dir) if entry["epoch"]}
    return "" if found == {whole} else f"epochs of {found} records, of {whole}"


if __name__ == "__main__":
    cli.run(main, FLAGS)
