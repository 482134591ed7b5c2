"""Lines of a log to events one by one: the definition of what is accepted, and the slow path."""

import csv
import functools
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from pipelines.logs import line_blocks, log_format
from pipelines.logs.event_rules import judge
from pipelines.logs.log_format import LogFormat
from pipelines.logs.parsed import TOO_LONG, BadLineError, Line, Parsed, read_each
from pipelines.logs.text_lines import lines_with_text

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"-?[0-9]{1,18}")
LIMIT = 1 << 62
"""Numbers are cut to it before they become times."""


def parse_line_by_line(block: line_blocks.Block, unit: line_blocks.Unit, log: LogFormat) -> Parsed:
    """As `parse_block`, each line alone."""
    lines = lines_with_text(block.data)
    read = functools.partial(_json_line if unit.kind == "jsonl" else _csv_line, unit=unit, log=log)
    parsed = one_by_one(((block.position + start, raw, raw) for start, raw in lines), read, log)
    return parsed.with_unread(block, lines.blank)


def one_by_one(
    lines: Iterable[Line], read: Callable[[Any], dict[str, Any]], log: LogFormat
) -> Parsed:
    """Values of each line where it has any, then judged together."""
    rows, origins, rejects = read_each(
        lines, lambda value: _values(read(value), log), log.max_line_bytes
    )
    values = zip(*rows, strict=True) if rows else [[] for _ in log.fields]
    columns = {
        role: pa.array(column, _VALUE_TYPES[role])
        for role, column in zip(log.fields, values, strict=True)
    }
    parsed = judge(columns, log, origins.__getitem__)
    parsed.lines += len(rejects)
    parsed.rejects += rejects
    return parsed


def _json_line(raw: bytes, unit: line_blocks.Unit, log: LogFormat) -> dict[str, Any]:
    text = _decode(raw, log)
    wanted = set(log.fields.values())

    def pairs(listed: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(listed)
        if len(value) < len(listed):
            keys = [key for key, _ in listed]
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
        raise BadLineError(TOO_LONG)
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


def read_id(value: Any, name: str) -> str:
    """An id as it is, without a look at its characters.

    Raises:
      BadLineError: it is neither text nor an integer.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError as error:  # more digits than Python writes
            raise BadLineError(f"{name} too long") from error
    if not isinstance(value, str):
        raise BadLineError(log_format.wrong_type(name))
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise BadLineError(f"invalid utf-8 in {name}") from error
    return value


def _read_id(value: Any, name: str, log: LogFormat) -> str:
    return read_id(value, name)


def _read_number(value: Any, name: str) -> int | float:
    if isinstance(value, str):
        if INTEGER.fullmatch(value):
            return int(value)
        if not NUMBER.fullmatch(value):
            raise BadLineError(log_format.wrong_type(name))
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadLineError(log_format.wrong_type(name))
    if isinstance(value, float) and not math.isfinite(value):
        raise BadLineError(f"{name} is not a finite number")
    return value


def _read_time(value: Any, name: str, log: LogFormat) -> int:
    number = max(-1, min(_read_number(value, name), LIMIT))
    return math.floor(number) // log_format.TIME_UNITS[log.time_unit]


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
    log_format.USER: _read_id, log_format.ITEM: _read_id, log_format.REQUEST: _read_id,
    log_format.TIME: _read_time, log_format.CLICKED: _read_label,
    log_format.SCORE: _read_float, log_format.RATING: _read_float,
}  # fmt: skip
_VALUE_TYPES = log_format.EVENT_TYPES | {
    log_format.SCORE: pa.float64(),
    log_format.RATING: pa.float64(),
}
