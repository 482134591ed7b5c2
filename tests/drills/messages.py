"""Whether what a command says when it fails can be understood."""

from sitn_tf import cli
from tests.drills.programs import Ended

_LINES = 3
"""The longest error."""
_SHOWN = 400
"""Characters of an error that is shown."""


def flaw(ended: Ended, *named: str) -> str:
    """What is wrong with the end of a command that met a fault, empty if nothing is.

    Args:
      named: one of these has to be in its error.
    """
    if "Traceback" in ended.err:
        return f"a traceback: {last_line(ended)}"
    *_, told = ended.err.split("error: ")
    if ended.status != cli.USER_ERROR_STATUS:
        return f"status {ended.status}: {told[-_SHOWN:]}"
    if not any(name in told for name in named):
        return f"{' or '.join(named)} is not named: {told.strip()[:_SHOWN]}"
    return "" if len(told.strip().splitlines()) <= _LINES else f"a long error: {told[:_SHOWN]}"


def last_line(ended: Ended) -> str:
    """Of the standard error."""
    return (ended.err.strip().splitlines() or [""])[-1][:_SHOWN]
