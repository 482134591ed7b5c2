"""Lines and requests that mean harm or have come to harm: parsed alike either way, answered or
refused, never a crash.

The generators are those of CI (tests/fuzzing), from other seeds and at length.
"""

import pathlib
from collections.abc import Callable, Iterator

from export import native
from tests.drills.outcome import Outcome
from tests.fuzzing import log_lines, serving_calls

LINES, SHORT_LINES = 100_000, 2_000
CALLS, SHORT_CALLS = 10_000, 200
TURN_LINES, TURN_CALLS = 1_000, 200
"""From one seed: little enough to be repeated, and many seeds."""
FIRST_SEED = 1_000
"""CI's seeds are smaller."""


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """100,000 lines and 10,000 requests, or some of each."""
    yield lines(SHORT_LINES if short else LINES)
    yield calls(folder, SHORT_CALLS if short else CALLS)


def lines(count: int) -> Outcome:
    """Mutated log lines, parsed at once and each alone."""
    lost = []
    turns = -(-count // TURN_LINES)
    for turn in range(turns):
        name, seed = list(log_lines.BASES)[turn % len(log_lines.BASES)], FIRST_SEED + turn
        again = f"tests.fuzzing.log_lines.fuzz({name!r}, {TURN_LINES}, seed={seed})"
        lost += _failure(again, log_lines.fuzz, name, TURN_LINES, seed)
    return Outcome("hostile log lines, parsed in blocks and alone", turns * TURN_LINES, tuple(lost))


def calls(folder: pathlib.Path, count: int) -> Outcome:
    """Calls that nobody should send, of a small servable; a new process where one died."""
    from export.exporting import export
    from export.options import ExportOptions
    from tests.export.small_run import write_small_run

    run_dir = write_small_run(folder / "run")
    version, _ = export(run_dir, folder / "servable", ExportOptions(goldens=64))
    lost = []
    turns = -(-count // TURN_CALLS)
    session = native.Session(version)
    for seed in range(FIRST_SEED, FIRST_SEED + turns):
        again = f"tests.fuzzing.serving_calls.fuzz(SESSION, seed={seed}, count={TURN_CALLS})"
        found = _failure(again, serving_calls.fuzz, session, seed, TURN_CALLS)
        if found:
            session.close()
            session = native.Session(version)
        lost += found
    session.close()
    return Outcome("hostile calls of a servable's signatures", turns * TURN_CALLS, tuple(lost))


def _failure(again: str, turn: Callable[..., object], *arguments: object) -> list[str]:
    """What went wrong in a turn, with how to repeat it; empty where nothing did."""
    try:
        turn(*arguments)
    except Exception as error:  # whatever it is, it should not have come
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:200]}: {again}"]
    return []
