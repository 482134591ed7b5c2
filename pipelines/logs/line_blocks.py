"""Files to blocks of whole lines, in memory bounded by the block, whatever the file holds."""

import contextlib
import csv
import dataclasses
import gzip
import io
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.logs import files
from sitn_tf.errors import InputError

Kind = Literal["jsonl", "csv", "parquet"]
KINDS = ("jsonl", "csv", "parquet")
_SUFFIXES = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip
_KEPT_OF_LONG_LINE = 4096
_MOST_LINES = 1 << 18
_ROWS_AT_ONCE = 200_000
_READ_BEYOND = 1 << 12
"""Bytes about a unit that are read with it: the byte before it and the end of its last line."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of an input file that one worker reads.

    Attributes:
      path, index: the file and its place among the inputs of its role.
      kind, gzipped: its format.
      start, end: byte range whose lines (those that begin in it) are the unit's; of a
        gzipped file the whole; of Parquet, `start` is the row group.
      at_line_start: whether `start` is known to be the first byte of a line.
      columns: the header of a CSV file.
      file_bytes: size of the whole file.
    """

    path: str
    index: int
    kind: Kind
    gzipped: bool
    start: int
    end: int
    at_line_start: bool = True
    columns: tuple[str, ...] = ()
    file_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class LongLine:
    """A line that is too long to be kept: where it begins, its length and its first bytes."""

    position: int
    length: int
    head: bytes


@dataclasses.dataclass(frozen=True)
class Block:
    """Whole lines, and the byte at which they begin in the (decompressed) file.

    Of many lines that have no text there is their number alone, `blank`.
    """

    position: int
    data: bytes
    long_lines: tuple[LongLine, ...] = ()
    blank: int = 0


def kind_of(path: str, given: str) -> tuple[Kind, bool]:
    """Format and whether gzipped, from the option or else from the file's name.

    Raises:
      InputError: neither tells the format.
    """
    name = path.lower()
    gzipped = name.endswith(".gz")
    name = name.removesuffix(".gz")
    if given != "auto":
        return cast(Kind, given), gzipped
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return cast(Kind, kind), gzipped
    raise InputError(
        f"the name of {path} does not tell its format: give file_format=jsonl, csv or parquet"
    )


def plan(field: str, patterns: str, given_kind: str, block_bytes: int) -> list[Unit]:
    """The units of the files that comma-separated patterns match; `field` holds them.

    Raises:
      InputError: a pattern without a match, a file of no known format or without content.
    """
    units: list[Unit] = []
    paths: dict[str, int] = {}
    for pattern in filter(None, (p.strip() for p in patterns.split(","))):
        if files.is_local(pattern) and os.path.isdir(pattern):
            raise InputError(f"{field}={pattern} is a folder: give a pattern such as {pattern}/*")
        files.check_reachable(field, pattern)
        matches = dict(files.match(pattern))
        if not matches:
            raise InputError(f"{field}={pattern} matches no file: check the path")
        paths |= matches
    if not paths:
        raise InputError(f"{field} is empty: give a file or a pattern")
    if not any(paths.values()):
        raise InputError(f"{field}={patterns} holds no lines: every file is empty")
    for index, (path, size) in enumerate(sorted(paths.items())):
        if size:
            kind, gzipped = kind_of(path, given_kind)
            units += units_of(_whole(path, index, kind, gzipped, size), block_bytes)
    return units


def units_at(path: str, given_kind: str, block_bytes: int) -> list[Unit]:
    """The units of one file, whose name is no pattern whatever characters it has.

    Raises:
      InputError: it is not there, or not of its format.
    """
    try:
        size = os.path.getsize(path) if files.is_local(path) else dict(files.match(path))[path]
    except (OSError, LookupError) as error:
        raise InputError(f"{path} is not there") from error
    kind, gzipped = kind_of(path, given_kind)
    return list(units_of(_whole(path, 0, kind, gzipped, size), block_bytes)) if size else []


def _whole(path: str, index: int, kind: Kind, gzipped: bool, size: int) -> Unit:
    """The unit that spans a file."""
    if kind == "parquet":
        return Unit(path, index, kind, False, 0, _row_groups(path), file_bytes=size)
    columns, start = _header(path, gzipped) if kind == "csv" else ((), 0)
    end = 1 << 62 if gzipped else size
    return Unit(path, index, kind, gzipped, start, end, columns=columns, file_bytes=size)


def units_of(whole: Unit, block_bytes: int) -> Iterator[Unit]:
    """The units of a file's whole: of `block_bytes` or, of Parquet, row groups."""
    if whole.gzipped:
        yield whole
        return
    row_groups = whole.kind == "parquet"
    step = 1 if row_groups else block_bytes
    for begin in range(whole.start, whole.end, step):
        yield dataclasses.replace(
            whole,
            start=begin,
            end=min(begin + step, whole.end),
            at_line_start=row_groups or begin == whole.start,
        )


def _row_groups(path: str) -> int:
    with files.reading(path) as stream:
        try:
            return int(pq.ParquetFile(stream).num_row_groups)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path} is not a Parquet file: {_one_line(error)}") from error


def _header(path: str, gzipped: bool) -> tuple[tuple[str, ...], int]:
    """Column names of a CSV file and the byte after its header."""
    with _decompressed(path, gzipped) as stream:
        try:
            line = stream.readline(1 << 20)
            text = line.decode("utf-8-sig")
        except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path} has no readable CSV header: {_one_line(error)}") from error
    if not text.strip():
        raise InputError(f"{path} begins with an empty line where its CSV header should be")
    return tuple(next(csv.reader([text.strip("\r\n")]))), len(line)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _decompressed(path: str, gzipped: bool) -> Iterator[BinaryIO]:
    with files.reading(path) as raw:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if gzipped else raw


@contextlib.contextmanager
def _of_unit(unit: Unit) -> Iterator[BinaryIO]:
    """A file to read the unit of. An object of a store is asked for all of it at once.

    Where the unit begins within a line, and where its last line ends, takes reads of its own; each
    would be a request, and with clients that fetch as much as a block ahead the block again.
    """
    with _decompressed(unit.path, unit.gzipped) as stream:
        if unit.gzipped or files.is_local(unit.path):
            yield stream
        else:
            size = unit.end - unit.start + _READ_BEYOND
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), size))


def read_blocks(unit: Unit, block_bytes: int, max_line_bytes: int) -> Iterator[Block]:
    """The whole lines that begin in the unit's range, a block at a time.

    Raises:
      InputError: a gzip file that is cut off or damaged.
    """
    with _of_unit(unit) as stream:
        lines = _Lines(stream, block_bytes, max_line_bytes)
        try:
            for block in lines.blocks(unit.start, unit.end, at_line_start=unit.at_line_start):
                yield from _of_bounded_lines(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{unit.path} is cut off or damaged after byte {lines.position} of its content "
                f"({_one_line(error)}): fetch it again"
            ) from error


def read_unit(
    unit: Unit,
    block_bytes: int,
    max_line_bytes: int,
    columns: Callable[[list[str]], Collection[str]],
) -> Iterator[tuple[int, Block | pa.Table]]:
    """(position, block), or of a Parquet file (row, table): pieces of bounded size.

    Args:
      columns: of the columns that a Parquet file has those to read.

    Raises:
      InputError: a gzip file that is cut off or damaged; what `columns` raises.
    """
    if unit.kind != "parquet":
        for block in read_blocks(unit, block_bytes, max_line_bytes):
            yield block.position, block
        return
    with files.reading(unit.path) as stream:
        file = pq.ParquetFile(stream)
        wanted = list(columns(file.schema_arrow.names))
        first = sum(file.metadata.row_group(g).num_rows for g in range(unit.start))
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[unit.start], columns=wanted):
            yield first, pa.Table.from_batches([batch])
            first += len(batch)


def _of_bounded_lines(block: Block) -> Iterator[Block]:
    """Halves a block until none has more than _MOST_LINES lines, or only such without text.

    What parsing keeps of a line is many times a line of one byte.
    """
    data = block.data
    if data.count(b"\n") <= _MOST_LINES:
        yield block
        return
    if data.isspace():
        blank = data.count(b"\n") + (not data.endswith(b"\n"))
        yield Block(block.position, b"", block.long_lines, blank)
        return
    middle = data.rfind(b"\n", 0, len(data) // 2) + 1 or data.index(b"\n", len(data) // 2) + 1
    yield from _of_bounded_lines(Block(block.position, data[:middle]))
    yield from _of_bounded_lines(Block(block.position + middle, data[middle:], block.long_lines))


class _Lines:
    """Reads lines in blocks and drops, in bounded memory, those that are too long."""

    def __init__(self, stream: BinaryIO, block_bytes: int, max_line_bytes: int) -> None:
        self.position = 0
        self._stream = stream
        self._block_bytes = block_bytes
        self._max_line_bytes = max_line_bytes

    def blocks(self, start: int, end: int, *, at_line_start: bool) -> Iterator[Block]:
        self.position = start
        if start:
            self._stream.seek(start if at_line_start else start - 1)
        if not at_line_start:
            self._skip_line(b"", keep=0)
        carry = b""
        while self.position < end:
            begin = self.position - len(carry)
            chunk = self._stream.read(min(self._block_bytes, end - self.position))
            self.position += len(chunk)
            data = carry + chunk
            if not chunk:  # the end of the file: its last line may lack a newline
                if data:
                    yield Block(begin, data)
                return
            cut = data.rfind(b"\n") + 1
            if self.position >= end and cut < len(data):  # a last line that ends after the range
                rest = self._stream.readline(self._max_line_bytes + 1)
                self.position += len(rest)
                data += rest
                whole = rest.endswith(b"\n") or len(data) - cut <= self._max_line_bytes
                cut = len(data) if whole else cut
            if len(data) - cut > self._max_line_bytes:
                length, head = self._skip_line(data[cut:], keep=_KEPT_OF_LONG_LINE)
                yield Block(begin, data[:cut], (LongLine(begin + cut, length, head),))
                carry = b""
                continue
            if cut:
                yield Block(begin, data[:cut])
            carry = data[cut:]

    def _skip_line(self, begun: bytes, *, keep: int) -> tuple[int, bytes]:
        """Reads to the end of a line; its length, and the first bytes of it.

        `position` counts what was read; when skipping from the byte before a range (nothing
        begun, nothing kept) that byte is not counted.
        """
        length, head = len(begun), begun[:keep]
        if not begun and not keep:
            self.position -= 1
        while True:
            piece = self._stream.readline(1 << 16)
            self.position += len(piece)
            length += len(piece)
            head += piece[: max(0, keep - len(head))]
            if not piece or piece.endswith(b"\n"):
                return length, head.rstrip(b"\n")
