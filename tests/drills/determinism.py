"""The same inputs, seed and versions in processes that share nothing: the same results.

Hash seeds of Python differ. Data sets are compared as sets of records, runs by their weights, a
servable by what it answers.
"""

import pathlib
import shutil
from collections.abc import Iterator

from tests.drills import kills, line, messages, programs
from tests.drills.outcome import Outcome

_MADE = ("build", "stage 1", "stage 2", "export", "vectors", "score_batch")
_HASH_SEEDS = ("1", "2")


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """A row a command; none in the short drill, which has no fresh process to spare."""
    if short:
        return
    steps = [step for step in line.STEPS if step.name in _MADE]
    whole = folder.parent / "line"
    line.make(whole, last=steps[-1].name)
    for step in steps:
        lost = []
        seeds = _HASH_SEEDS[:1] if step.takes_long else _HASH_SEEDS
        for seed in seeds:
            own = folder / "own"
            step.prepare(whole, own)
            command = step.command(whole, own)
            ended = programs.run_fresh(command, PYTHONHASHSEED=seed)
            made, undisturbed = step.result(own), line.result_of(step, whole)
            shutil.rmtree(own)
            if ended.status:
                lost.append(f"status {ended.status}: {messages.last_line(ended)} ({command})")
            elif not line.same(made, undisturbed):
                lost.append(f"different: {kills.different(made, undisturbed)} ({command})")
        yield Outcome(f"another process: {step.name}", len(seeds), tuple(lost))
