"""kill -9 of each command of the line at random moments, then the same command again.

    python -m tests.drills.kills [--step=build] [--seed=0] [--tries=20]

Survived: what passes for finished right after the kill is what an undisturbed command makes, and
so is what the command given again ends with, with no file more beside it. Moments are drawn evenly
over the time that the undisturbed command took. As a part of all drills each command has so many
kills as fit its share of the time, at least `_FEWEST`.
"""

import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator

from absl import flags

from sitn_tf import cli
from tests.drills import line, programs
from tests.drills.line import Step
from tests.drills.outcome import Outcome

FLAGS = flags.FlagValues()
_STEP = flags.DEFINE_enum("step", None, [s.name for s in line.STEPS], "One.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.", flag_values=FLAGS)
_TRIES = flags.DEFINE_integer("tries", 20, "Kills of a command.", 1, flag_values=FLAGS)

_SECONDS = 480.0
"""Of all drills' hour, shared evenly by the commands."""
_FEWEST, _MOST = 3, 12
"""Kills of a command."""
_OF_A_KILL = 1.5
"""Times an undisturbed command that a kill and the command given again take."""
_ALREADY = ("is there already", "exists")
"""What a command says that refuses an output that is finished."""


def main(_: list[str]) -> int:
    """Kills one command, or each."""
    steps = [step for step in line.STEPS if _STEP.value in (None, step.name)]
    lost = 0
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        for outcome in kill_each(steps, pathlib.Path(folder) / "kills", _SEED.value, _TRIES.value):
            print(
                f"{outcome.fault}: {outcome.survived} of {outcome.tried}",
                *outcome.lost,
                sep="\n",
                flush=True,
            )
            lost += len(outcome.lost)
    return 1 if lost else 0


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """A row a command; the short drill kills the build alone."""
    if short:
        yield from kill_each(line.STEPS[:1], folder, seed=0, tries=1)
        return
    seconds = line.make(folder.parent / "line")
    for step in line.STEPS:
        fitting = int(_SECONDS / len(line.STEPS) / _OF_A_KILL / seconds[step.name])
        tries = min(_MOST, max(_FEWEST, fitting))
        yield from kill_each([step], folder, seed=0, tries=tries)


def kill_each(
    steps: tuple[Step, ...] | list[Step], folder: pathlib.Path, seed: int, tries: int
) -> Iterator[Outcome]:
    """Makes the line up to the last of some steps, then kills each of them `tries` times."""
    whole = folder.parent / "line"
    seconds = line.make(whole, last=steps[-1].name)
    for step in steps:
        again = f"python -m tests.drills.kills --step='{step.name}' --seed={seed} --tries={tries}"
        moments = random.Random(f"{seed} {step.name}")
        lost = []
        for number in range(tries):
            moment = moments.uniform(0, seconds[step.name])
            own = folder / f"{step.name}-{number}"
            while (what := kill(step, whole, own, moment)) is None:
                moment /= 2
            if what:
                lost.append(f"killed after {moment:.2f} s, {what} ({again}, try {number + 1})")
            shutil.rmtree(own, ignore_errors=True)
        yield Outcome(f"kill -9: {step.name}", tries, tuple(lost))


def kill(step: Step, whole: pathlib.Path, own: pathlib.Path, moment: float) -> str | None:
    """Kills a command so many seconds after its start.

    Returns:
      What was lost, empty if nothing was; None if the command had ended by then.
    """
    undisturbed = line.result_of(step, whole)
    step.prepare(whole, own)
    command = step.command(whole, own)
    program = programs.Program(command, whole)
    if program.wait(moment):
        program.end()
        shutil.rmtree(own, ignore_errors=True)
        return None
    program.kill()
    program.end()
    left = step.result(own)
    if left is not None and not line.same(left, undisturbed):
        return f"what it left looks finished and is not: {different(left, undisturbed)}"
    ended = programs.run(command, whole)
    refused = ended.status == cli.USER_ERROR_STATUS and any(a in ended.err for a in _ALREADY)
    if ended.status and not (refused and left is not None):
        return f"the command given again ended with {ended.status}: {ended.err[-500:]}"
    made = step.result(own)
    if not line.same(made, undisturbed):
        return f"given again it ended in something else: {different(made, undisturbed)}"
    more = line.names(own) - line.names(line.after(step, whole))
    return f"left behind: {', '.join(sorted(more))}" if more else ""


def different(ours: line.Result | None, theirs: line.Result | None) -> str:
    """The names of what differs."""
    if ours is None or theirs is None:
        return "nothing" if ours is None else "something"
    return ", ".join(
        sorted(
            name
            for name in ours.keys() | theirs.keys()
            if not line.same({"": ours.get(name)}, {"": theirs.get(name)})
        )[:5]
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
