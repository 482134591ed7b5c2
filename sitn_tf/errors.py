"""Errors of all three packages."""

import re


class InputError(ValueError):
    """An error that the caller can mend: one line naming the thing and the remedy.

    Libraries name arguments and fields, `init=RUN`; a command shows those that are flags of
    its own as flags, `--init=RUN` (`cli.in_flags`).

    Args:
      message: what was received and what is accepted.
      remedy: what to give or do instead; a setting in it, `stage2.min_lift=0`, is shown by a
        command as `--set stage2.min_lift=0`.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


_OF_GRAPH = re.compile(r"\{\{\w+ \S*?\}\}\s*|\s*\[Op:\w+\]( name:.*)?$")


def first_line(error: Exception) -> str:
    """What an error says first, or its type where it says nothing; no names of graph nodes."""
    return _OF_GRAPH.sub("", (str(error).strip().splitlines() or [type(error).__name__])[0])
