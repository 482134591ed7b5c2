"""A file that a command reads is altered, cut or missing.

    python -m tests.drills.damage [--step=evaluate] [--files=config] [--every=1] [--show]

What a command reads is seen by the files' access times, so no kind of file can be forgotten. Alone
this tries each damage to each file; as a part of all drills each command has its share of the time,
and where that is short it has one damage to each so manieth file, another for the next. Survived:
it ends with status 2 and a line or two that name the file, or in what it makes of files that are
whole. Commands that judge have to find everything.
"""

import math
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from sitn_tf import cli, schema
from tests.drills import line, messages, programs
from tests.drills.line import Step
from tests.drills.outcome import Outcome

FLAGS = flags.FlagValues()
_STEP = flags.DEFINE_string("step", None, "One command.", flag_values=FLAGS)
_FILES = flags.DEFINE_string("files", "", "Only files with this in their name.", flag_values=FLAGS)
_EVERY = flags.DEFINE_integer(
    "every", 1, "Of files and damages each so manieth pair.", 1, flag_values=FLAGS
)
_SHOW = flags.DEFINE_boolean("show", False, "Print what commands say.", flag_values=FLAGS)


def _altered(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _cut(path: pathlib.Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _emptied(path: pathlib.Path) -> None:
    path.write_bytes(b"")


_SAMPLED = 13
"""Of the pairs of a file and a damage the short drill tries each so manieth."""
_SECONDS = 660.0
"""Of all drills' hour, shared evenly by the commands."""
_KIND = re.compile(rf"\d+|{'|'.join(schema.DOMAINS)}")
"""Files whose names differ in this only are of one kind."""
DAMAGES: dict[str, Callable[[pathlib.Path], None]] = {
    "a byte altered": _altered,
    "cut in half": _cut,
    "empty": _emptied,
    "missing": pathlib.Path.unlink,
}


def _clusters(own: pathlib.Path) -> line.Result | None:
    from sitn_tf import interests

    told = own / "run" / schema.STAGE1 / interests.FOLDER / "clusters.json"
    return {"clusters": told.read_bytes()} if told.exists() else None


JUDGES = (
    Step("verify", "pipelines.verify", lambda whole, _: [f"--data_dir={whole}/data"], line.nothing),
    Step(
        "versions --check",
        "export.versions",
        lambda whole, _: [f"--servable={whole}/servable", "--check"],
        line.nothing,
    ),
    Step(
        "export.verify",
        "export.verify",
        lambda whole, _: [f"--servable={whole}/servable/1"],
        line.nothing,
    ),
)
READERS = (
    *(step for step in line.STEPS if step.name not in ("build", "verify", "versions --prune")),
    Step(
        "versions",
        "export.versions",
        lambda whole, _: [f"--servable={whole}/servable"],
        line.nothing,
    ),
    Step(
        "export of the same",
        "export.export_model",
        lambda whole, own: [f"--run_dir={whole}/run/stage2", f"--output={own}/servable"],
        line.exported,
        changes=("servable",),
    ),
    Step(
        "interests",
        "sitn_tf.interests",
        lambda _, own: [f"--run_dir={own}/run/stage1"],
        _clusters,
        changes=("run",),
    ),
    Step(
        "vectors --user",
        "export.vectors",
        lambda whole, _: [f"--vectors={whole}/vectors", "--user=u25"],
        line.nothing,
    ),
)


def main(_: list[str]) -> int:
    """Damages what one command reads, or each."""
    lost = 0
    steps = [s for s in (*JUDGES, *READERS) if _STEP.value in (None, s.name)]
    with tempfile.TemporaryDirectory(prefix="damage_") as folder:
        own = pathlib.Path(folder) / "damage"
        damaged = damage_each(steps, own, _FILES.value, _SHOW.value, every=_EVERY.value)
        for outcome in damaged:
            print(f"{outcome.fault}: {outcome.survived} of {outcome.tried} survived", flush=True)
            print(*outcome.lost, sep="\n", end="\n" if outcome.lost else "")
            lost += len(outcome.lost)
    return 1 if lost else 0


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """A row a command; the short drill has a sample of `pipelines.verify`'s."""
    if short:
        yield from damage_each(JUDGES[:1], folder, every=_SAMPLED)
        return
    steps = (*JUDGES, *READERS)
    for step in steps:
        yield from damage_each([step], folder, seconds=_SECONDS / len(steps))


def damage_each(
    steps: Sequence[Step],
    folder: pathlib.Path,
    files: str = "",
    show: bool = False,
    every: int = 1,
    seconds: float = math.inf,
) -> Iterator[Outcome]:
    """Makes the line, then damages what each of some steps reads.

    Args:
      files: part of the names of the files to damage.
      show: whether to print what commands say.
      every: of files and damages only each so manieth pair.
      seconds: that all tries of a step may take, were each undisturbed; more pairs are left out.
    """
    whole = folder.parent / "line"
    line.make(whole, last="build" if tuple(steps) == JUDGES[:1] else line.STEPS[-1].name)
    for step in steps:
        lost = []
        began = time.monotonic()
        undisturbed, read = _undisturbed(step, whole, folder / "undisturbed")
        took = time.monotonic() - began
        pairs = [
            (path, name)
            for path in read
            if files in path.name
            # There is nothing to alter or cut in an empty file.
            for name in (DAMAGES if path.stat().st_size else ("missing",))
        ][::every]
        pairs = pairs[:: _rotating(len(pairs) * took / seconds, len(pairs))]
        for path, name in pairs:
            what, said = _try(step, whole, folder / "own", path, DAMAGES[name], undisturbed)
            told = f"{path.relative_to(whole)} {name}"
            if show:
                print(f"{step.name}: {told}: {said}", flush=True)
            if what:
                again = f"python -m tests.drills.damage --step='{step.name}' --files={path.name}"
                lost.append(f"{told}: {what} ({again})")
        yield Outcome(f"damaged file: {step.name}", len(pairs), tuple(lost))


def _rotating(least: float, pairs: int) -> int:
    """A step through pairs, so long at most that each kind of damage is tried."""
    step = max(1, min(math.ceil(least), pairs // len(DAMAGES)))
    return step if step % 2 else step - 1


def _undisturbed(
    step: Step, whole: pathlib.Path, own: pathlib.Path
) -> tuple[line.Result | None, list[pathlib.Path]]:
    """What a step comes to, and a file of each kind that it reads."""
    step.prepare(whole, own)
    given = {path: path for path in _files(whole)}
    given |= {own / p.relative_to(whole / "before"): p for p in _files(whole / "before")}
    for path in given:
        if path.exists():
            line.forget_access(path)
    ended = programs.run(step.command(whole, own), whole)
    if ended.status not in (0, 1):
        raise RuntimeError(f"{step.name}: {ended.err}")
    read = [origin for path, origin in given.items() if line.was_read(path)]
    if not read:  # a file system without times of access
        read = [origin for path, origin in given.items() if path.exists()]
    kinds = {_KIND.sub("*", str(path.relative_to(whole))): path for path in read}
    result = step.result(own)
    shutil.rmtree(own)
    return result, list(kinds.values())


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _try(
    step: Step,
    whole: pathlib.Path,
    own: pathlib.Path,
    path: pathlib.Path,
    damage: Callable[[pathlib.Path], None],
    undisturbed: line.Result | None,
) -> tuple[str, str]:
    """What was lost, and what the command said."""
    content = path.read_bytes()
    damage(path)
    try:
        step.prepare(whole, own)
        ended = programs.run(step.command(whole, own), whole)
        what = _lost(step, ended, path, own, undisturbed)
    finally:
        path.write_bytes(content)
        shutil.rmtree(own)
    return what, f"{ended.status} {ended.err.strip() or ended.out.strip()[-300:]}"


def _lost(
    step: Step,
    ended: programs.Ended,
    path: pathlib.Path,
    own: pathlib.Path,
    undisturbed: line.Result | None,
) -> str:
    # Of a checkpoint, which is two files, the name of both.
    name = path.name.split(".index")[0].split(".data-")[0]
    if step in JUDGES:
        found = ended.status and name in ended.err + ended.out and "Traceback" not in ended.err
        return "" if found else f"not found: {ended.out[-300:]}{ended.err[-300:]}"
    if ended.status == 0:
        fine = undisturbed is None or line.same(step.result(own), undisturbed)
        return "" if fine else "the command took it for whole and made something else of it"
    return messages.flaw(ended, name)


if __name__ == "__main__":
    cli.run(main, FLAGS)
