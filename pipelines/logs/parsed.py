"""What became of lines: a table of events (or items), lines filtered by rule, and rejects."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipelines.logs import line_blocks

BLANK_LINE = "blank_line"
"""The rule by which lines without text are filtered, of logs and item files alike."""


@dataclasses.dataclass(frozen=True)
class Reject:
    """A line that could not be used; `position` is its byte (Parquet: row) in the file.

    `whole` is False where only the beginning of a long line was kept.
    """

    position: int
    reason: str
    raw: bytes
    whole: bool = True


@dataclasses.dataclass
class Parsed:
    """What became of a block's lines: lines = rows of `events` (or items) + filtered + rejects."""

    events: pa.Table
    lines: int
    filtered: dict[str, int]
    rejects: list[Reject]

    def with_blank(self, blank: int) -> "Parsed":
        """Also counts lines without text."""
        self.lines += blank
        if blank:
            self.filtered[BLANK_LINE] = blank
        return self


class BadLineError(Exception):
    """A value or line that is rejected; the message is the reason."""


def long_lines(block: line_blocks.Block) -> list[Reject]:
    """The lines that were too long to be kept."""
    return [Reject(line.position, "line too long", line.head, False) for line in block.long_lines]


def reject_lines(domain: str, unit: line_blocks.Unit, rejects: Iterable[Reject]) -> str:
    """Rejects as JSON lines: where the line is, why it was not used, and its text.

    `pipelines.replay` makes logs of them again.
    """
    described = []
    for reject in sorted(rejects, key=lambda r: r.position):
        entry: dict[str, Any] = {
            "domain": domain,
            "file": unit.path,
            "position": reject.position,
            "reason": reject.reason,
        }
        try:
            entry["line"] = reject.raw.decode()
        except UnicodeDecodeError:
            entry["line_hex"] = reject.raw.hex()
        if not reject.whole:
            entry["cut"] = True
        if unit.columns:
            entry["columns"] = unit.columns
        described.append(json.dumps(entry))
    return "".join(line + "\n" for line in described)
