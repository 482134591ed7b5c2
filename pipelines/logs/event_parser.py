"""A block of raw log lines to a table of events and the lines that could not be used.

A block is parsed at once. Where that fails, or could mean something else than
parsing each line alone, the block goes line by line: that path (`line_parser`) defines
what is right, and a test holds the fast one to it.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipelines.logs import line_blocks, log_format
from pipelines.logs.event_rules import judge
from pipelines.logs.line_parser import INTEGER, LIMIT, NUMBER, one_by_one, parse_line_by_line
from pipelines.logs.log_format import LogFormat
from pipelines.logs.parsed import Parsed, described_rows
from pipelines.logs.text_lines import Lines, lines_with_text

_ARROW_ONLY = re.compile(rb"[:,\[\s](?:-NaN|-?Inf(?!inity))")


class _NotAtOnceError(Exception):
    """The block can't be parsed at once: line by line will tell what is wrong."""


def parse_unit(
    unit: line_blocks.Unit, log: LogFormat, block_bytes: int, domain: str
) -> Iterator[tuple[int, Parsed]]:
    """(position, what was parsed) of each block of a unit.

    Raises:
      InputError: a Parquet file lacks a column, or a file is damaged.
    """

    def columns(names: list[str]) -> Collection[str]:
        log_format.check_columns(unit.path, names, log, domain)
        return log.fields.values()

    for place, piece in line_blocks.read_unit(unit, block_bytes, log.max_line_bytes, columns):
        if isinstance(piece, line_blocks.Block):
            yield place, parse_block(piece, unit, log)
        else:
            yield place, parse_rows(piece, place, log)


def parse_block(block: line_blocks.Block, unit: line_blocks.Unit, log: LogFormat) -> Parsed:
    """Parses whole lines of JSON or CSV."""
    lines = lines_with_text(block.data)
    try:
        if not len(lines.starts) or lines.longest > log.max_line_bytes:
            raise _NotAtOnceError
        if not block.data.isascii():
            block.data.decode()
        read_at_once = _json_at_once if unit.kind == "jsonl" else _csv_at_once
        table = read_at_once(block.data, lines, unit, log)
        if len(table) != len(lines.starts):
            raise _NotAtOnceError
        columns = _normalise(table, log)
    except (UnicodeDecodeError, pa.ArrowInvalid, _NotAtOnceError):
        return parse_line_by_line(block, unit, log)
    parsed = judge(
        columns, log, lambda row: (block.position + int(lines.starts[row]), lines.text(row))
    )
    return parsed.with_unread(block, lines.blank)


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
        kind = types.get(type(first.get(name)))
        if kind is None:
            raise _NotAtOnceError
        if role in (log_format.SCORE, log_format.RATING) and kind == pa.int64():
            kind = pa.float64()  # 5, then 4.5
        fields.append((name, kind))
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
    table = _times_as_numbers(table, log)
    try:
        columns = _normalise(table, log)
    except (pa.ArrowInvalid, _NotAtOnceError):
        return one_by_one(described_rows(table, first_row), lambda row: row, log)

    def describe(row: int) -> tuple[int, bytes]:
        [(position, raw, _)] = described_rows(table.slice(row, 1), first_row + row)
        return position, raw

    return judge(columns, log, describe)


def _times_as_numbers(table: pa.Table, log: LogFormat) -> pa.Table:
    """Rows whose times, where they have a type of their own, are numbers in the log's unit.

    What has no zone is UTC. So times mean the same at once, row by row and in rejects, which are
    JSON.
    """
    column = table[log.time].combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = pc.floor_temporal(column, unit="second")
    elif not pa.types.is_date(column.type):
        return table
    seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    unit = log_format.TIME_UNITS[log.time_unit]
    numbers = np.clip(seconds.fill_null(0).to_numpy(), -1, LIMIT // unit) * unit
    place = table.column_names.index(log.time)
    given = pa.array(numbers, mask=~np.asarray(seconds.is_valid()))
    return table.set_column(place, log.time, given)


def _normalise(table: pa.Table, log: LogFormat) -> dict[str, pa.Array]:
    """Columns by role: ids as strings, time as int64 seconds, null where missing."""
    return {
        role: _NORMALISERS[role](table[name].combine_chunks(), log)
        for role, name in log.fields.items()
    }


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
        if _all_match(column, INTEGER):
            return column.cast(pa.int64())
        if not _all_match(column, NUMBER):  # Arrow also takes 0x1F and nan
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
    number = _number(column)
    valid = np.asarray(number.is_valid())
    values = number.fill_null(0).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = np.floor(np.clip(values, -1.0, float(LIMIT))).astype(np.int64)
    return pa.array(values // log_format.TIME_UNITS[log.time_unit], mask=~valid)


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
    log_format.USER: _ids, log_format.ITEM: _ids, log_format.REQUEST: _ids, log_format.TIME: _times,
    log_format.CLICKED: _labels, log_format.SCORE: _floats, log_format.RATING: _floats,
}  # fmt: skip
