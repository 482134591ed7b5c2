"""The line that drills disturb: tiny logs → data set → both stages → servable, vectors, scores.

All of it lies in one folder, as the commands left it:

    logs/  data/  run/stage1/  run/stage2/  servable/1/  vectors/  scores/
    before/       what some commands change, as it was: the run without a test, three versions
    after/        what they made of it, by step
    seconds.json  how long each took
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sitn_tf import quiet, runs, schema, whole_files
from tests.drills import programs
from tests.drills.programs import Command

_USERS = 60
_VERSIONS = 3
_OF_THE_MOMENT = ("created", "drift", "not_measured")
"""Of a version's metadata."""

Result = dict[str, Any]
"""What a command made, by name, without moments and places."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities; which requests Beam scores together moves their last bits."""

    ctr: Sequence[float]

    def __eq__(self, other: object) -> bool:
        from export import golden

        return isinstance(other, Scores) and np.allclose(
            self.ctr, other.ctr, rtol=0, atol=golden.CTR_TOLERANCE
        )


@dataclass(frozen=True)
class Step:
    """A command of the line.

    Attributes:
      name: of the step.
      module: the command.
      flags: given the folder of the line before it, and the folder to write into.
      result: of the folder written into; None where nothing there passes for finished.
      changes: what it changes, which has to be there before.
      takes_long: tens of seconds on two busy cores; it is tried less often.
    """

    name: str
    module: str
    flags: Callable[[pathlib.Path, pathlib.Path], Iterable[str]]
    result: Callable[[pathlib.Path], Result | None]
    changes: tuple[str, ...] = ()
    takes_long: bool = False

    def command(self, whole: pathlib.Path, own: pathlib.Path) -> Command:
        """What makes its part of the line in `own` from the rest of it in `whole`."""
        return Command(self.module, tuple(self.flags(whole, own)))

    def prepare(self, whole: pathlib.Path, own: pathlib.Path) -> None:
        """Makes a new folder with what the command changes, as it was before."""
        own.mkdir(parents=True, exist_ok=True)
        for name in self.changes:
            shutil.copytree(whole / "before" / name, own / name)


def same(ours: Result | None, theirs: Result | None) -> bool:
    """Whether two results are equal, arrays bit by bit."""
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return False
    try:
        np.testing.assert_equal(ours, theirs)
    except AssertionError:
        return False
    return True


def names(folder: pathlib.Path) -> set[str]:
    """The files below a folder, numbers in their names left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"\d+", "N", str(path)) for path in found}


def _build(whole: pathlib.Path, own: pathlib.Path) -> Iterable[str]:
    for domain in schema.DOMAINS:
        yield f"--{domain}_log={whole}/logs/{domain}.jsonl.gz"
        yield f"--{domain}_items={whole}/logs/{domain}_items.jsonl.gz"
    yield f"--output={own}/data"
    yield from ("--label_field=click", "--request_field=request_id", "--score_field=score")
    yield "--shards=2"


def _stage(number: int, init: str = "") -> Callable[[pathlib.Path, pathlib.Path], Iterable[str]]:
    def flags(whole: pathlib.Path, own: pathlib.Path) -> Iterable[str]:
        yield from (f"--stage={number}", f"--data_dir={whole}/data", f"--workdir={own}/run")
        yield from ("--preset=tiny", "--set=contrast.granularities=4", "--checkpoint_steps=1")
        yield from ("--set=stage1.batch_size=16", "--set=stage2.batch_size=16")
        if init:
            yield f"--init={whole}/{init}"

    return flags


def dataset(own: pathlib.Path) -> Result | None:
    """A data set's files; of shards the sets of records."""
    from pipelines.verification.record_rules import read_tfrecords

    folder = own / "data"
    if not (folder / schema.MANIFEST_FILE).is_file():
        return None
    found: Result = {}
    for path in filter(pathlib.Path.is_file, folder.rglob("*")):
        content: Any = path.read_bytes().replace(str(folder).encode(), b"DATA")
        found[str(path.relative_to(folder))] = (
            sorted(read_tfrecords(path)) if ".tfrecord-" in path.name else content
        )
    return found


def _run(stage: str) -> Callable[[pathlib.Path], Result | None]:
    def result(own: pathlib.Path) -> Result | None:
        from tests.sitn_tf.training import resuming

        run_dir = own / "run" / stage
        if not runs.is_finished(run_dir):
            return None
        copied = {
            str(path.relative_to(run_dir)): path.read_bytes()
            for part in ("vocabularies", "items")
            for path in (run_dir / part).glob("*")
        }
        return resuming.outcome(run_dir) | copied

    return result


def _evaluated(own: pathlib.Path) -> Result | None:
    run_dir = own / "run" / schema.STAGE2
    metrics = runs.read_json(run_dir / runs.METRICS_FILE, {})
    if schema.TEST not in metrics:
        return None
    with np.load(run_dir / "predictions-test.npz") as kept:
        return {"metrics": metrics, **kept}


def exported(own: pathlib.Path) -> Result | None:
    """The versions of a servable, or the first flaw in one."""
    from export import golden, version_files

    servable = own / "servable"
    found: Result = {}
    for version in version_files.present(servable):
        folder = servable / str(version)
        if (flaw := version_files.flaw(folder)) is not None:
            return {str(version): flaw}
        metadata = version_files.read_metadata(folder)
        metadata["run"] = None
        for name in _OF_THE_MOMENT:
            del metadata[name]
        found[str(version)] = (metadata, (folder / golden.FILE).read_bytes())
    return found or None


def _thinned(left: tuple[int, ...]) -> Callable[[pathlib.Path], Result | None]:
    """Of versions of which only some are to be left: none as long as there are more."""

    def result(own: pathlib.Path) -> Result | None:
        from export import version_files

        found = exported(own)
        present = version_files.present(own / "servable")
        return None if {*left} < {*present} else found

    return result


def _vectors(own: pathlib.Path) -> Result | None:
    folder = own / "vectors"
    if not folder.exists():
        return None
    told = json.loads((folder / "vectors.json").read_text()) | {"run_dir": None}
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "vectors.json"}
    return files | {"told": told}


def _scores(own: pathlib.Path) -> Result | None:
    import pyarrow.parquet as pq

    files = sorted((own / "scores").glob("S-*"))
    if not files:
        return None
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    scores = {(row["user_id"], row["request_time"], *row["item"]): row["ctr"] for row in rows}
    names = sorted(scores, key=repr)
    return {"requests": names, "ctr": Scores([ctr for name in names for ctr in scores[name]])}


def nothing(_: pathlib.Path) -> Result | None:
    """Of commands that write nothing."""
    return {}


def forget_access(path: pathlib.Path) -> None:
    """Makes a file look as if nobody had read it since 1970."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns))


def was_read(path: pathlib.Path) -> bool:
    """Whether somebody has since; where the file system keeps no such times, never."""
    return path.exists() and path.stat().st_atime_ns > 0


STEPS = (
    Step("build", "pipelines.build_dataset", _build, dataset),
    Step("verify", "pipelines.verify", lambda whole, _: [f"--data_dir={whole}/data"], nothing),
    Step("stage 1", "sitn_tf.train", _stage(1), _run(schema.STAGE1), takes_long=True),
    Step(
        "stage 2",
        "sitn_tf.train",
        _stage(2, "run/stage1"),
        _run(schema.STAGE2),
        takes_long=True,
    ),
    Step(
        "evaluate",
        "sitn_tf.evaluate",
        lambda _, own: [f"--run_dir={own}/run/stage2", "--keep_predictions"],
        _evaluated,
        changes=("run",),
    ),
    Step(
        "export",
        "export.export_model",
        lambda whole, own: [f"--run_dir={whole}/run/stage2", f"--output={own}/servable"],
        exported,
        takes_long=True,
    ),
    Step(
        "versions --keep",
        "export.versions",
        lambda _, own: [f"--servable={own}/servable", "--keep=1"],
        _thinned((3,)),
        changes=("servable",),
    ),
    Step(
        "versions --prune",
        "export.versions",
        lambda _, own: [f"--servable={own}/servable", "--prune"],
        _thinned((1, 3)),
        changes=("servable",),
        takes_long=True,
    ),
    Step(
        "vectors",
        "export.vectors",
        lambda whole, own: [f"--run_dir={whole}/run/stage1", f"--output={own}/vectors"],
        _vectors,
    ),
    Step(
        "score_batch",
        "export.score_batch",
        lambda whole, own: [
            f"--servable={whole}/servable/1",
            f"--input={whole}/data/stage2/{schema.records_name(schema.STAGE2)}-test.tfrecord-*",
            f"--output={own}/scores/S",
        ],
        _scores,
    ),
)


def make(whole: pathlib.Path, last: str = STEPS[-1].name) -> dict[str, float]:
    """Makes the line undisturbed, up to a step, as far as it is not there; seconds by step."""
    quiet.import_tensorflow()  # what reads the results needs it
    told = whole / "seconds.json"
    seconds: dict[str, float] = runs.read_json(told, {})
    if not seconds:
        whole.mkdir(parents=True)
        logs = (f"--users={_USERS}", f"--output={whole}/logs")
        _do(Command("pipelines.synthetic", logs), whole)
    for step in STEPS[: [step.name for step in STEPS].index(last) + 1]:
        if step.name in seconds:
            continue
        own = after(step, whole)
        if step.changes:
            _keep_before(whole, step.changes[0])
            step.prepare(whole, own)
        seconds[step.name] = _do(step.command(whole, own), whole).seconds
        whole_files.write_json(told, seconds)
    return seconds


def after(step: Step, whole: pathlib.Path) -> pathlib.Path:
    """The folder that a step of the undisturbed line wrote into."""
    return whole / "after" / step.name.replace(" ", "") if step.changes else whole


def _keep_before(whole: pathlib.Path, name: str) -> None:
    before = whole / "before" / name
    if before.exists():
        return
    shutil.copytree(whole / name, before)
    if name == "servable":
        for version in range(2, _VERSIONS + 1):
            shutil.copytree(before / "1", before / str(version))
        (before / "2" / "saved_model.pb").unlink()


def result_of(step: Step, whole: pathlib.Path) -> Result | None:
    """What a step of the undisturbed line came to."""
    return step.result(after(step, whole))


def _do(command: Command, folder: pathlib.Path) -> programs.Ended:
    ended = programs.run(command, folder)
    if ended.status:
        raise RuntimeError(f"{command} ended with {ended.status}: {ended.out}{ended.err}")
    return ended
