"""The lines of a block that have any text."""

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lines:
    """Where the lines of a block are that have any text.

    Attributes:
      data: the block.
      starts, stops: int64 [lines], first byte and end (newline left out).
      blank: how many lines besides are empty or of white space alone.
    """

    data: bytes
    starts: np.ndarray
    stops: np.ndarray
    blank: int

    @property
    def longest(self) -> int:
        return int((self.stops - self.starts).max(initial=0))

    def text(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.stops[row]]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """First byte and text of each line."""
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield start, self.data[start:stop]


def lines_with_text(data: bytes) -> Lines:
    """Finds the lines; nothing is kept of a blank one."""
    text = np.frombuffer(data, np.uint8)
    stops = np.flatnonzero(text == ord("\n"))
    if data and not data.endswith(b"\n"):
        stops = np.append(stops, len(data))
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)[: len(stops)]
    # a line that begins with text, as nearly all do, needs no closer look
    doubtful = np.flatnonzero(_IS_SPACE[text[starts]])
    blank = np.zeros(len(starts), bool)
    if len(doubtful):
        spaces = np.concatenate([[0], np.cumsum(_IS_SPACE[text])])
        begin, end = starts[doubtful], stops[doubtful]
        blank[doubtful] = spaces[end] - spaces[begin] == end - begin
    return Lines(data, starts[~blank], stops[~blank], int(blank.sum()))


_IS_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\x0b\x0c", np.uint8))
