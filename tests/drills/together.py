"""Two commands at once on one directory, and a clock that jumps back.

Survived: nothing is lost, and of two who can't both be first one is told who is at it, or that
the other has been there.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

from export import version_files
from sitn_tf import cli
from tests.drills import line, messages, programs
from tests.drills.line import Step
from tests.drills.outcome import Outcome
from tests.drills.programs import Command, Ended

_PAIRS = ("build", "stage 1", "stage 2", "export", "vectors")
_SAID_TWICE = ("stage 1", "stage 2", "export")
"""Steps that end well, and write nothing, where all is there already."""
_TOLD = ("is being written by process", "is being written by somebody who", "exists", "is there")
_ROLLED_BACK_AFTER = (0.0, 0.5, 0.95)
"""Of the time that an export takes."""
_CLOCKED = ("build", "stage 1", "export")
_CLOCK = pathlib.Path(__file__).with_name("clock.c")


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """Pairs, an export beside a rollback, a clock; the short drill starts two builds."""
    pairs = _PAIRS[:1] if short else _PAIRS
    whole = folder.parent / "line"
    seconds = line.make(whole, last=pairs[-1])
    for name in pairs:
        step = _step(name)
        times = 1 if short or step.takes_long else 3
        lost = [_pair(step, whole, folder / "pair") for _ in range(times)]
        yield Outcome(f"two at once: {name}", len(lost), tuple(filter(None, lost)))
    if short:
        return
    waits = [share * seconds["export"] for share in _ROLLED_BACK_AFTER]
    lost = [_beside_a_rollback(whole, folder / "beside", wait) for wait in waits]
    yield Outcome("export beside a rollback", len(lost), tuple(filter(None, lost)))
    yield from _clocked(whole, folder)


def _step(name: str) -> Step:
    return next(step for step in line.STEPS if step.name == name)


def _pair(step: Step, whole: pathlib.Path, own: pathlib.Path) -> str:
    undisturbed = line.result_of(step, whole)
    step.prepare(whole, own)
    both = [programs.Program(step.command(whole, own), whole) for _ in range(2)]
    ended = [program.end() for program in both]
    made = step.result(own)
    more = line.names(own) - line.names(line.after(step, whole))
    shutil.rmtree(own)
    both_well = [[0, 0]] if step.name in _SAID_TWICE else []
    if sorted(e.status for e in ended) not in [[0, cli.USER_ERROR_STATUS], *both_well]:
        return f"they ended with {[(e.status, messages.last_line(e)) for e in ended]}"
    if what := "; ".join(filter(None, map(_untold, ended))):
        return what
    if not line.same(made, undisturbed):
        return "what both made is not what one makes"
    return f"left behind: {', '.join(sorted(more))}" if more else ""


def _untold(ended: Ended) -> str:
    """What is wrong with what somebody was told who was not first."""
    return messages.flaw(ended, *_TOLD) if ended.status else ""


def _beside_a_rollback(whole: pathlib.Path, own: pathlib.Path, wait: float) -> str:
    """An export of a further version, and so many seconds later a rollback."""
    servable = own / "servable"
    own.mkdir()
    shutil.copytree(whole / "before" / "servable", servable)
    shutil.rmtree(servable / "2")  # it is broken, so there would be none to go back to
    run = f"--run_dir={whole}/run/stage2"
    export = Command("export.export_model", (run, f"--output={servable}", "--force"))
    back = Command("export.versions", (f"--servable={servable}", "--rollback"))
    exporting = programs.Program(export, whole)
    exporting.wait(wait)
    ended = [programs.run(back, whole), exporting.end()]
    there = {*version_files.present(servable), *version_files.withdrawn(servable)}
    flaws = [version_files.flaw(servable / str(n)) for n in version_files.present(servable)]
    shutil.rmtree(own)
    if what := "; ".join(filter(None, map(_untold, ended))):
        return f"after {wait:.1f} s: {what}"
    if any(flaws):
        return f"after {wait:.1f} s: a version is damaged: {flaws}"
    expected = {1, 3} if ended[1].status else {1, 3, 4}
    return "" if there == expected else f"after {wait:.1f} s: there are the versions {there}"


def _clocked(whole: pathlib.Path, folder: pathlib.Path) -> Iterator[Outcome]:
    """Commands whose clock goes back by a day while they run."""
    library = folder / "clock.so"
    compiled = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_CLOCK), "-ldl"]
    fault = "clock a day back"
    try:
        subprocess.run(compiled, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        yield Outcome(fault, 0, (), f"gcc: {error}")
        return

    def run(command: Command) -> Ended:
        return programs.run_fresh(command, LD_PRELOAD=str(library), CLOCK_BACK_AFTER="9")

    for name in _CLOCKED:
        what = _clocked_step(_step(name), whole, folder / "clocked", run)
        yield Outcome(f"{fault}: {name}", 1, (what,) if what else ())
    what = _numbers(whole, folder / "numbers", run)
    yield Outcome(f"{fault}: numbers of versions", 1, (what,) if what else ())


def _clocked_step(
    step: Step, whole: pathlib.Path, own: pathlib.Path, run: Callable[[Command], Ended]
) -> str:
    step.prepare(whole, own)
    ended = run(step.command(whole, own))
    fine = line.same(step.result(own), line.result_of(step, whole))
    if ended.status or not fine:
        return f"it ended with {ended.status} in something else: {messages.last_line(ended)}"
    return ""


def _numbers(whole: pathlib.Path, own: pathlib.Path, run: Callable[[Command], Ended]) -> str:
    """Whether a number is given twice: the newest version is withdrawn and pruned before."""
    servable = own / "servable"
    own.mkdir()
    shutil.copytree(whole / "before" / "servable", servable)
    shutil.rmtree(servable / "2")
    for flag in ("--rollback", "--prune"):
        programs.run(Command("export.versions", (f"--servable={servable}", flag)), whole)
    flags = (f"--run_dir={whole}/run/stage2", f"--output={servable}", "--force")
    ended = run(Command("export.export_model", flags))
    there = version_files.present(servable)
    return "" if there == [1, 4] else f"there are {there}: {messages.last_line(ended)}"
