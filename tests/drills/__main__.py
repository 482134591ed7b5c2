"""Tries faults on every command and prints how often each was survived.

    python -m tests.drills [--short] [--only=kills,damage] [--folder=FOLDER]

The status is 1 where something was lost; below the table it is named, each with the command that
repeats it. The whole takes an hour or more, --short a minute. In FOLDER stays `said.log`: how each
command ended, and what it said on standard error; of a cluster in `servers/*/`.
"""

import contextlib
import importlib
import logging
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence

from absl import flags

from sitn_tf import cli
from sitn_tf.errors import InputError
from sitn_tf.pages import markdown
from sitn_tf.pages.page import Section, Table
from tests.drills import programs
from tests.drills.outcome import Outcome

FLAGS = flags.FlagValues()
_SHORT = flags.DEFINE_boolean("short", False, "A sample of each drill.", flag_values=FLAGS)
_ONLY = flags.DEFINE_list("only", [], "Drills by name; all of them if empty.", flag_values=FLAGS)
_FOLDER = flags.DEFINE_string(
    "folder", None, "An empty folder to keep; a temporary one if not given.", flag_values=FLAGS
)

DRILLS: dict[str, str] = {
    "kills": "tests.drills.kills",
    "damage": "tests.drills.damage",
    "disks": "tests.drills.disks",
    "servers": "tests.drills.servers",
    "together": "tests.drills.together",
    "determinism": "tests.drills.determinism",
    "load": "tests.drills.load",
    "hostile": "tests.drills.hostile",
}
"""By name, the module whose `outcomes(folder, short)` yields the rows of its part."""

LOST = 1
_SAID_FILE = "said.log"


def main(_: list[str]) -> int:
    """Runs the drills and prints their table; the status is `LOST` where something was."""
    chosen = _ONLY.value or list(DRILLS)
    for name in chosen:
        if name not in DRILLS:
            raise InputError(f"only={name} is not one of: {', '.join(DRILLS)}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drills_") as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with _what_is_said_in(folder / _SAID_FILE):
            found = list(run(chosen, folder, _SHORT.value))
    print(report(found, time.monotonic() - began))
    return LOST if any(outcome.lost for outcome in found) else 0


@contextlib.contextmanager
def _what_is_said_in(path: pathlib.Path) -> Iterator[None]:
    """Has what `programs` logs of the commands appended to a file."""
    log = logging.getLogger(programs.__name__)
    log.setLevel(logging.INFO)
    log.propagate = False
    with contextlib.closing(logging.FileHandler(path)) as handler:
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)


def run(names: Sequence[str], folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """The outcomes of some drills, each in a folder of its own, said as they come.

    Beside these folders they share one, `line`.
    """
    for name in names:
        for outcome in _carried_out(name, folder / name, short):
            told = outcome.skipped or f"{outcome.survived} of {outcome.tried} survived"
            print(f"{name}: {outcome.fault}: {told}", *outcome.lost, sep="\n  lost: ", flush=True)
            yield outcome


def _carried_out(name: str, own: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """A drill's outcomes; that it fails itself is one, so that it does not end the others."""
    if own.exists():
        raise InputError(f"folder={own.parent} has {name} of an earlier run", "give an empty one")
    own.mkdir(parents=True)
    try:
        yield from importlib.import_module(DRILLS[name]).outcomes(own, short)
    except Exception as error:
        yield Outcome(f"{name}: the drill itself", 1, (f"{type(error).__name__}: {error}",))


def report(found: Sequence[Outcome], seconds: float) -> str:
    """The table as Markdown, and below it what was lost."""
    rows = [(o.fault, str(o.tried), str(o.survived), o.skipped or str(len(o.lost))) for o in found]
    lost = [f"- {outcome.fault}: {what}" for outcome in found for what in outcome.lost]
    tried = sum(outcome.tried for outcome in found)
    table = Table(
        f"{tried} times in {seconds / 60:.1f} minutes", ("fault", "tried", "survived", "lost"), rows
    )
    return markdown.document(
        "Drills", "", [Section("What it survives", "", [table, "\n".join(lost)])]
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
