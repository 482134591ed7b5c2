"""A block of raw log lines to a table of events and the lines that could not be used.

A block is parsed at once. Where that fails, or could mean something else than
parsing each line alone, the block goes line by line: that path defines what is
right, and a test holds the fast one to it.
"""

import csv
import dataclasses
import functools
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipelines.logs import line_blocks
from sitn_tf import schema
from sitn_tf.errors import InputError

TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
MAX_ID_BYTES = 512
BLANK_LINE = "blank_line"
"""The rule by which lines without text are filtered, of logs and item files alike."""

_LIMIT = 1 << 62

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ARROW_ONLY = re.compile(rb"[:,\[\s](?:-NaN|-?Inf(?!inity))")
_INTEGER = re.compile(r"-?[0-9]{1,18}")

USER, ITEM, TIME = "user", "item", "time"
CLICKED, REQUEST, SCORE, RATING = "clicked", "request", "score", "rating"

_TYPES = {
    USER: pa.string(),
    ITEM: pa.string(),
    TIME: pa.int64(),
    CLICKED: pa.bool_(),
    REQUEST: pa.string(),
    SCORE: pa.float32(),
}


@dataclasses.dataclass(frozen=True)
class LogFormat:
    """How a domain's log is to be read: names of its fields and what is let through.

    Attributes:
      user, item, time: field names.
      label: field that tells impressions clicked from not clicked; None: all are clicks.
      request: field that names the request an impression belongs to.
      score: field of the score the log gives a candidate.
      rating, min_rating: lines of a lower rating are filtered.
      time_unit: of the time field; events have seconds.
      max_time: seconds; later times are rejected as far future.
      max_line_bytes: longer lines are rejected.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    label: str | None = None
    request: str | None = None
    score: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    time_unit: str = "s"
    max_time: int = 4_102_444_800
    max_line_bytes: int = 1 << 20

    @property
    def fields(self) -> dict[str, str]:
        """Names in the log by role, of the fields that are read."""
        named = {
            USER: self.user,
            ITEM: self.item,
            TIME: self.time,
            CLICKED: self.label,
            REQUEST: self.request,
            SCORE: self.score,
            RATING: self.rating,
        }
        return {role: name for role, name in named.items() if name is not None}

    @property
    def schema(self) -> pa.Schema:
        """Of the events: user, item, time, clicked, and request and score if logged."""
        optional = {REQUEST: self.request, SCORE: self.score}
        return pa.schema([(c, t) for c, t in _TYPES.items() if optional.get(c, "") is not None])


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


class _NotAtOnceError(Exception):
    """The block can't be parsed at once: line by line will tell what is wrong."""


class BadLineError(Exception):
    """A value or line that is rejected; the message is the reason."""


def field_flags(log: LogFormat, domain: str) -> dict[str, str]:
    """By field that is read, the flag that names it."""
    flags = {
        role: f"--{domain}_{role}_field (or --{role}_field)" for role in (USER, ITEM, TIME)
    } | {
        CLICKED: "--label_field" if domain == schema.TARGET else f"--{domain}_label_field",
        REQUEST: "--request_field",
        SCORE: "--score_field",
        RATING: "--rating_field",
    }
    return {field: flags[role] for role, field in log.fields.items()}


def no_column(path: str, columns: Iterable[str], log: LogFormat, domain: str) -> InputError | None:
    """The error of a file that lacks a column; None where it has all."""
    columns = list(columns)
    for field, flag in field_flags(log, domain).items():
        if field not in columns:
            return InputError(
                f"{path} has no column {field}: it has {', '.join(columns)}: check {flag}"
            )
    return None


def missing(field: str) -> str:
    """The reason of a line without a field."""
    return f"missing field {field}"


def far_future(field: str) -> str:
    """The reason of a line whose time is past `LogFormat.max_time`."""
    return f"{field} in the far future"


def parse_block(block: line_blocks.Block, unit: line_blocks.Unit, log: LogFormat) -> Parsed:
    """Parses whole lines of JSON or CSV."""
    long_lines = [
        Reject(line.position, "line too long", line.head, False) for line in block.long_lines
    ]
    parsed = _parse_lines(block, unit, log)
    parsed.rejects += long_lines
    parsed.lines += len(long_lines)
    return parsed


def _parse_lines(block: line_blocks.Block, unit: line_blocks.Unit, log: LogFormat) -> Parsed:
    lines = lines_with_text(block.data)
    if not len(lines.starts):
        return _with_blank(Parsed(log.schema.empty_table(), 0, {}, []), lines.blank)
    try:
        if not _is_text(block.data) or lines.longest > log.max_line_bytes:
            raise _NotAtOnceError
        read_at_once = _json_at_once if unit.kind == "jsonl" else _csv_at_once
        table = read_at_once(block.data, lines, unit, log)
        if len(table) != len(lines.starts):
            raise _NotAtOnceError
        columns = _normalise(table, log)
    except (pa.ArrowInvalid, _NotAtOnceError):
        return parse_line_by_line(block, unit, log)
    parsed = _judge(
        columns, log, lambda row: (block.position + int(lines.starts[row]), lines.text(row))
    )
    return _with_blank(parsed, lines.blank)


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


def _with_blank(parsed: Parsed, blank: int) -> Parsed:
    """Also counts lines without text."""
    parsed.lines += blank
    if blank:
        parsed.filtered[BLANK_LINE] = blank
    return parsed


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_at_once(data: bytes, lines: Lines, unit: line_blocks.Unit, log: LogFormat) -> pa.Table:
    # Arrow takes any run of objects, whatever the lines: only lines that begin and end
    # with a brace, as many as rows, are sure to be one object each.
    starts, stops = lines.starts, lines.stops
    text = np.frombuffer(data, np.uint8)
    last = text[stops - 1]
    last = np.where(last == ord("\r"), text[np.maximum(stops - 2, 0)], last)
    if not ((text[starts] == ord("{")) & (last == ord("}"))).all():
        raise _NotAtOnceError
    # Arrow takes spellings of infinity that Python does not.
    if (b"Inf" in data or b"-NaN" in data) and _ARROW_ONLY.search(data):
        raise _NotAtOnceError
    options = pa.json.ParseOptions(
        explicit_schema=_json_schema(lines.text(0), log), unexpected_field_behavior="ignore"
    )
    read = pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return pa.json.read_json(pa.BufferReader(data), read_options=read, parse_options=options)


def _json_schema(line: bytes, log: LogFormat) -> pa.Schema:
    """Types of the fields as the first line has them."""
    try:
        first = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _NotAtOnceError from error
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    fields = []
    for role, name in log.fields.items():
        found = types.get(type(first.get(name)))
        if found is None:
            raise _NotAtOnceError
        if role in (SCORE, RATING) and found == pa.int64():
            found = pa.float64()  # 5, then 4.5
        fields.append((name, found))
    return pa.schema(fields)


def _csv_at_once(data: bytes, lines: Lines, unit: line_blocks.Unit, log: LogFormat) -> pa.Table:
    if b'"' in data or b"\r" in data.replace(b"\r\n", b""):
        raise _NotAtOnceError
    wanted = list(log.fields.values())
    return pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(
            use_threads=False, block_size=len(data) + 1, column_names=list(unit.columns)
        ),
        parse_options=pa.csv.ParseOptions(quote_char=False),
        convert_options=pa.csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.string()),
            strings_can_be_null=False,
        ),
    )


def parse_rows(table: pa.Table, first_row: int, log: LogFormat) -> Parsed:
    """Parses rows of a Parquet file, whose columns have types already."""
    rows = len(table)
    try:
        columns = _normalise(table, log)
    except (pa.ArrowInvalid, _NotAtOnceError):
        values = [
            (first_row + i, json.dumps(row, default=str).encode(), row)
            for i, row in enumerate(table.to_pylist())
        ]
        lines: list[tuple[int, bytes, Callable[[], dict[str, Any]]]] = [
            (position, raw, functools.partial(dict, row)) for position, raw, row in values
        ]
        return _one_by_one(lines, rows, log)

    def describe(row: int) -> tuple[int, bytes]:
        value = table.slice(row, 1).to_pylist()[0]
        return first_row + row, json.dumps(value, default=str).encode()

    return _judge(columns, log, describe)


def _normalise(table: pa.Table, log: LogFormat) -> dict[str, pa.Array]:
    """Columns by role: ids as strings, time as int64 seconds, null where missing."""
    columns = {}
    for role, name in log.fields.items():
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0)
        columns[role] = _NORMALISERS[role](column, log)
    return columns


def _ids(column: pa.Array, log: LogFormat) -> pa.Array:
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_integer(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    if pa.types.is_dictionary(column.type):
        return _ids(column.dictionary_decode(), log)
    raise _NotAtOnceError


def _number(column: pa.Array) -> pa.Array:
    """int64, else float64 without NaN or infinity; null stays null."""
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_string(column.type):
        if _all_match(column, _INTEGER):
            return column.cast(pa.int64())
        if not _all_match(column, _NUMBER):  # Arrow also takes 0x1F and nan
            raise _NotAtOnceError
        column = column.cast(pa.float64())
    if not pa.types.is_floating(column.type):
        raise _NotAtOnceError
    column = column.cast(pa.float64())
    if not pc.all(pc.is_finite(column), min_count=0).as_py():
        raise _NotAtOnceError
    return column


def _all_match(strings: pa.Array, pattern: re.Pattern[str]) -> bool:
    matches = pc.match_substring_regex(strings, f"^(?:{pattern.pattern})$")
    return bool(pc.all(matches, min_count=0).as_py())


def _times(column: pa.Array, log: LogFormat) -> pa.Array:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return seconds
    number = _number(column)
    valid = np.asarray(number.is_valid())
    values = number.fill_null(0).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = np.floor(np.clip(values, -1.0, float(_LIMIT))).astype(np.int64)
    return pa.array(values // TIME_UNITS[log.time_unit], mask=~valid)


def _labels(column: pa.Array, log: LogFormat) -> pa.Array:
    if pa.types.is_boolean(column.type):
        return column
    number = _number(column)
    zero, one = pc.equal(number, 0), pc.equal(number, 1)
    if not pc.all(pc.or_(zero, one), min_count=0).as_py():
        raise _NotAtOnceError
    return one


def _floats(column: pa.Array, log: LogFormat) -> pa.Array:
    return _number(column).cast(pa.float64())


_NORMALISERS: dict[str, Callable[[pa.Array, LogFormat], pa.Array]] = {
    USER: _ids, ITEM: _ids, REQUEST: _ids, TIME: _times,
    CLICKED: _labels, SCORE: _floats, RATING: _floats,
}  # fmt: skip


def _judge(
    columns: dict[str, pa.Array], log: LogFormat, describe: Callable[[int], tuple[int, bytes]]
) -> Parsed:
    """Decides row by row, vectorised: rejected (first reason counts), filtered or an event.

    `describe` gives the position and the raw text of a row.
    """
    rows = len(columns[USER])
    reasons: list[str] = []
    verdict = np.zeros(rows, np.int16)  # 0: fine, else 1 + index into reasons

    def reject(where: pa.Array | np.ndarray, reason: str) -> None:
        bad = np.asarray(where) & (verdict == 0)
        if bad.any():
            reasons.append(reason)
            verdict[bad] = len(reasons)

    for role, name in log.fields.items():
        if role != SCORE:  # a score is optional
            reject(columns[role].is_null(), missing(name))
    for role in (USER, ITEM, REQUEST):
        if role in columns:
            ids = columns[role].fill_null("")
            reject(pc.equal(pc.binary_length(ids), 0), f"empty {log.fields[role]}")
            reject(pc.greater(pc.binary_length(ids), MAX_ID_BYTES), f"{log.fields[role]} too long")
            reject(_has_control_character(ids), f"control character in {log.fields[role]}")
    times = columns[TIME].fill_null(0).to_numpy()
    reject(times < 0, f"negative {log.time}")
    reject(times > log.max_time, far_future(log.time))
    rejects = [
        Reject(position, reasons[verdict[row] - 1], raw)
        for row in np.flatnonzero(verdict)
        for position, raw in [describe(int(row))]
    ]
    kept, filtered = verdict == 0, {}
    if RATING in columns:
        low = columns[RATING].fill_null(0.0).to_numpy() < (log.min_rating or -math.inf)
        filtered = _counted("rating_below_minimum", kept & low)
        kept &= ~low
    return Parsed(_events(columns, kept, log), rows, filtered, rejects)


def _counted(rule: str, where: np.ndarray) -> dict[str, int]:
    return {rule: int(where.sum())} if where.any() else {}


def _has_control_character(ids: pa.Array) -> np.ndarray:
    data = ids.buffers()[2]
    if data is None or not _any_control(np.frombuffer(data, np.uint8)):
        return np.zeros(len(ids), bool)
    return np.asarray(pc.match_substring_regex(ids, r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"))


def _any_control(data: np.ndarray) -> bool:
    return bool(((data < 32) | (data >= 127)).any())


def _events(columns: dict[str, pa.Array], kept: np.ndarray, log: LogFormat) -> pa.Table:
    columns = dict(columns)
    rows = len(columns[USER])
    if log.label is None:
        columns[CLICKED] = pa.array(np.ones(rows, bool))
    table = pa.table({f.name: columns[f.name].cast(f.type) for f in log.schema})
    return table if kept.all() else table.filter(pa.array(kept))


# Line by line: the definition of what is accepted, and the slow path.


def parse_line_by_line(block: line_blocks.Block, unit: line_blocks.Unit, log: LogFormat) -> Parsed:
    """As `parse_block` (long lines that were not kept left out), each line alone."""
    lines = lines_with_text(block.data)
    parse = _json_line if unit.kind == "jsonl" else _csv_line
    parsed = _one_by_one(
        (
            (block.position + start, raw, functools.partial(parse, raw, unit, log))
            for start, raw in lines
        ),
        len(lines.starts),
        log,
    )
    return _with_blank(parsed, lines.blank)


def _one_by_one(
    lines: Iterable[tuple[int, bytes, Callable[[], dict[str, Any]]]], count: int, log: LogFormat
) -> Parsed:
    """Values of each line where it has any, then judged together."""
    rows: list[list[Any]] = []
    origins: list[tuple[int, bytes]] = []
    rejects: list[Reject] = []
    for position, raw, parse in lines:
        try:
            rows.append(_values(parse(), log))
            origins.append((position, raw))
        except BadLineError as reason:
            kept = raw[: log.max_line_bytes]
            rejects.append(Reject(position, str(reason), kept, len(kept) == len(raw)))
    types = [_VALUE_TYPES[role] for role in log.fields]
    values = zip(*rows, strict=True) if rows else [[] for _ in types]
    columns = {
        role: pa.array(column, type_)
        for role, column, type_ in zip(log.fields, values, types, strict=True)
    }
    parsed = _judge(columns, log, lambda row: origins[row])
    parsed.lines = count
    parsed.rejects += rejects
    return parsed


def _json_line(raw: bytes, unit: line_blocks.Unit, log: LogFormat) -> dict[str, Any]:
    text = _decode(raw, log)
    wanted = set(log.fields.values())

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) < len(found):
            keys = [key for key, _ in found]
            repeated = sorted(key for key in wanted if keys.count(key) > 1)
            if repeated:
                value[_REPEATED] = repeated[0]
        return value

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise BadLineError("malformed json") from error
    if not isinstance(value, dict):
        raise BadLineError("not a json object")
    if _REPEATED in value:
        raise BadLineError(f"repeated field {value[_REPEATED]}")
    return value


_REPEATED = "\0repeated"


def _csv_line(raw: bytes, unit: line_blocks.Unit, log: LogFormat) -> dict[str, Any]:
    return csv_row(_decode(raw, log), unit.columns)


def csv_row(text: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """The cells of one line of CSV by column.

    Raises:
      BadLineError: it is no CSV, has a cell that is too long, or more or fewer cells than columns.
    """
    try:
        rows = list(csv.reader(io.StringIO(text.rstrip("\r"), newline=""), strict=True))
    except csv.Error as error:
        raise BadLineError("malformed csv") from error
    if len(rows) != 1 or len(rows[0]) != len(columns):
        raise BadLineError("wrong number of columns")
    return dict(zip(columns, rows[0], strict=True))


def _decode(raw: bytes, log: LogFormat) -> str:
    if len(raw) > log.max_line_bytes:
        raise BadLineError("line too long")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadLineError("invalid utf-8") from error


def _values(row: dict[str, Any], log: LogFormat) -> list[Any]:
    """The fields that are read, in order, each None or of its type in `_VALUE_TYPES`."""
    return [
        None if row.get(name) is None else _READERS[role](row[name], name, log)
        for role, name in log.fields.items()
    ]


def _read_id(value: Any, name: str, log: LogFormat) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadLineError(f"wrong type in {name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise BadLineError(f"invalid utf-8 in {name}") from error
    return value


def _read_number(value: Any, name: str) -> int | float:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        if not _NUMBER.fullmatch(value):
            raise BadLineError(f"wrong type in {name}")
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadLineError(f"wrong type in {name}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadLineError(f"{name} is not a finite number")
    return value


def _read_time(value: Any, name: str, log: LogFormat) -> int:
    if hasattr(value, "timestamp"):
        return math.floor(value.timestamp())
    number = max(-1, min(_read_number(value, name), _LIMIT))
    return math.floor(number) // TIME_UNITS[log.time_unit]


def _read_label(value: Any, name: str, log: LogFormat) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    number = _read_number(value, name)
    if number not in (0, 1):
        raise BadLineError(f"{name} is neither 0 nor 1")
    return number == 1


def _read_float(value: Any, name: str, log: LogFormat) -> float:
    try:
        return float(_read_number(value, name))
    except OverflowError as error:
        raise BadLineError(f"{name} is not a finite number") from error


_READERS: dict[str, Callable[[Any, str, LogFormat], Any]] = {
    USER: _read_id, ITEM: _read_id, REQUEST: _read_id, TIME: _read_time,
    CLICKED: _read_label, SCORE: _read_float, RATING: _read_float,
}  # fmt: skip
_VALUE_TYPES = _TYPES | {SCORE: pa.float64(), RATING: pa.float64()}
