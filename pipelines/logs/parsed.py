"""What became of lines: a table of events (or items), lines filtered by rule, and rejects."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

from pipelines.logs import line_blocks

BLANK_LINE = "blank_line"
"""The rule by which lines without text are filtered, of logs and item files alike."""
TOO_LONG = "line too long"

Row = TypeVar("Row")
Line: TypeAlias = tuple[int, bytes, Any]
"""Where a line is, its text, and what its values are read from (text or a row)."""


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

    def with_unread(self, block: line_blocks.Block, blank: int) -> "Parsed":
        """Also counts a block's lines without text, and those that were too long to be kept."""
        self.rejects += [
            Reject(line.position, TOO_LONG, line.head, False) for line in block.long_lines
        ]
        blank += block.blank
        self.lines += blank + len(block.long_lines)
        if blank:
            self.filtered[BLANK_LINE] = blank
        return self


class BadLineError(Exception):
    """A value or line that is rejected; the message is the reason."""


def read_each(
    lines: Iterable[Line], read: Callable[[Any], Row], longest: int | None = None
) -> tuple[list[Row], list[tuple[int, bytes]], list[Reject]]:
    """What `read` makes of each line, where it is and its text; and the lines it rejects.

    Of a rejected line the first `longest` bytes are kept.
    """
    rows, origins, rejects = [], [], []
    for position, raw, value in lines:
        try:
            rows.append(read(value))
            origins.append((position, raw))
        except BadLineError as reason:
            kept = raw[:longest]
            rejects.append(Reject(position, str(reason), kept, len(kept) == len(raw)))
    return rows, origins, rejects


def described_rows(table: pa.Table, first_row: int) -> Iterator[Line]:
    """The rows of a Parquet file as lines."""
    for place, row in enumerate(table.to_pylist(), first_row):
        yield place, json.dumps(row, default=str).encode(), row


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
