"""A command's docstring and flags → what `--help` prints, on one screen (`--helpfull`: all)."""

import re
import textwrap

from absl import flags

COLUMNS, LINES = 100, 40
"""A screen. Docstrings have lines of up to 100 columns."""
_INDENT = 2
_LONGEST_LEFT = 26
_REPEATED = re.compile(r"\.?;\s+repeat this option to specify a list of values$")
"""What absl adds to the meaning of a flag of several values."""


def screen(doc: str, flag_values: flags.FlagValues) -> str:
    """What the command does, its first example, and its flags, in `LINES` lines.

    What there is no room for goes in turn: the rest of the docstring, then what the last defined
    flags mean, of which the names stay.
    """
    head = _up_to_example(doc)
    text = whole(doc, flag_values)
    names = list(flag_values)
    for count in range(len(names), -1, -1):
        if text.count("\n") < LINES:
            break
        others = " ".join(["more: --helpfull", *(f"--{name}" for name in names[count:])])
        text = _page(head, _described(names[:count], flag_values)) + "\n\n"
        text += textwrap.fill(others, COLUMNS, break_on_hyphens=False)
    return text


def whole(doc: str, flag_values: flags.FlagValues) -> str:
    """The docstring and every flag."""
    return _page(doc.strip(), _described(list(flag_values), flag_values))


def _page(told: str, described: str) -> str:
    return f"{told}\n\nflags, with [defaults]:\n{described}"


def _up_to_example(doc: str) -> str:
    paragraphs = doc.strip().split("\n\n")
    shown = next((i for i, text in enumerate(paragraphs) if "    python -m " in text), 0)
    return "\n\n".join(paragraphs[: shown + 1])


def _described(names: list[str], flag_values: flags.FlagValues) -> str:
    """A line or two of each flag."""
    lefts = {name: _left(flag_values[name]) for name in names}
    width = min(max(map(len, lefts.values()), default=0), _LONGEST_LEFT)
    return "\n".join(
        textwrap.fill(
            f"{lefts[name]:{width}}  {_meaning(flag_values[name])}",
            COLUMNS,
            initial_indent=" " * _INDENT,
            subsequent_indent=" " * (_INDENT + width + 2),
            break_on_hyphens=False,
        )
        for name in names
    )


def _left(flag: flags.Flag) -> str:
    return f"--{'[no]' if flag.boolean else ''}{flag.name}"


def _meaning(flag: flags.Flag) -> str:
    default = flag.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    unset = default is None or default is False or default == ""
    told = _REPEATED.sub("; may be repeated.", flag.help)
    return told if unset else f"{told} [{default}]"
