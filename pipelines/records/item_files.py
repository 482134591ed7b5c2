"""Item files → RAW rows: what they say of items, as text."""

import ast
import dataclasses
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipelines.logs import line_blocks
from pipelines.logs.event_rules import id_reason
from pipelines.logs.line_parser import csv_row, read_id
from pipelines.logs.log_format import check_once, missing
from pipelines.logs.parsed import BadLineError, Line, Parsed, described_rows, read_each
from pipelines.logs.text_lines import lines_with_text
from pipelines.options import ItemFields
from pipelines.records import vector_column
from sitn_tf import schema

_TEXT_COLUMNS = (schema.ITEM, schema.TITLE, *schema.CATEGORICAL_ITEM_FEATURES)
RAW = pa.schema([(name, pa.string()) for name in _TEXT_COLUMNS])
RAW_WITH_VECTORS = RAW.append(pa.field(schema.VECTOR, pa.large_binary()))
"""Of files whose items may have vectors (records/vector_column.py)."""
_MAX_TEXT = 2_000
_MAX_ITEM_BYTES = 1 << 22
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def parse_items(
    unit: line_blocks.Unit, fields: ItemFields, block_bytes: int, width: int = 0
) -> Iterator[tuple[int, Parsed]]:
    """(position, what was parsed) of each block of a unit of an item file.

    Args:
      width: of the items' vectors; 0 takes any.

    Raises:
      InputError: a Parquet file has a column that is read twice, or a file is damaged.
    """
    known = set(dataclasses.asdict(fields).values())

    def columns(names: list[str]) -> list[str]:
        check_once(unit.path, names, known)
        return [name for name in names if name in known]

    for place, piece in line_blocks.read_unit(unit, block_bytes, _MAX_ITEM_BYTES, columns):
        if isinstance(piece, line_blocks.Block):
            yield place, parse_lines(piece, unit, fields, width)
        else:
            yield place, parse_rows(piece, place, fields, width)


def parse_lines(
    block: line_blocks.Block, unit: line_blocks.Unit, fields: ItemFields, width: int = 0
) -> Parsed:
    """Lines of an item file (JSON, Python literals or CSV) to RAW rows and rejects."""
    lines = lines_with_text(block.data)
    parsed = _parsed(
        ((block.position + start, raw, raw) for start, raw in lines),
        lambda raw: read_item(_parse(raw, unit), fields, width),
        fields,
    )
    return parsed.with_unread(block, lines.blank)


def parse_rows(table: pa.Table, first_row: int, fields: ItemFields, width: int = 0) -> Parsed:
    """Rows of a Parquet item file to RAW rows and rejects."""
    lines = described_rows(table, first_row)
    return _parsed(lines, lambda row: read_item(row, fields, width), fields)


def _parsed(
    lines: Iterable[Line], read: Callable[[Any], dict[str, Any]], fields: ItemFields
) -> Parsed:
    rows, _, rejects = read_each(lines, read)
    table = from_rows(rows, RAW_WITH_VECTORS if fields.vector else RAW)
    return Parsed(table, len(rows) + len(rejects), {}, rejects)


def _parse(raw: bytes, unit: line_blocks.Unit) -> dict[str, Any]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadLineError("invalid utf-8") from error
    if unit.kind == "csv":
        return csv_row(text, unit.columns)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _python_literal(text)
    if not isinstance(value, dict):
        raise BadLineError("not a json object")
    return value


def _python_literal(text: str) -> Any:
    """The lines of the Amazon files of 2014 are Python literals: read, never evaluated."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise BadLineError("neither json nor a python literal") from error


def read_item(row: dict[str, Any], fields: ItemFields, width: int = 0) -> dict[str, Any]:
    """An item's RAW columns, "" where nothing is known; and its vector where the files have them.

    Raises:
      BadLineError: the item has no id, or what is no vector of the width.
    """
    item = _item_id(row.get(fields.item), fields.item)
    path = _category_path(row.get(fields.categories))
    main, second = [*path, "", ""][:2]
    read: dict[str, Any] = {
        schema.ITEM: item,
        schema.TITLE: _text(row.get(fields.title)),
        "brand": _text(row.get(fields.brand)),
        "main_category": _text(row.get(fields.main_category)) or main,
        "second_category": _text(row.get(fields.second_category)) or second,
        "leaf_category": _text(row.get(fields.leaf_category)) or "".join(path[2:][-1:]),
    }
    if fields.vector:
        read[schema.VECTOR] = vector_column.read(row.get(fields.vector), fields.vector, width)
    return read


def _item_id(value: Any, field: str) -> str:
    """An id by the rules of logs, which is to be found there."""
    if value is None:
        raise BadLineError(missing(field))
    item = read_id(value, field)
    if reason := id_reason(item, field):
        raise BadLineError(reason)
    return item


def _category_path(value: Any) -> list[str]:
    """["Books", "History"] or [["Books", "History"], ...] or "Books|History" to its path."""
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list) or not value:
        return []
    if isinstance(value[0], list):
        value = value[0]
    return [c for c in map(_text, value) if c]


def _text(value: Any) -> str:
    """As `_clean`, without the mark-up that shops leave in their catalogues."""
    text = _clean(value)
    if "<" in text or "&" in text:
        text = _clean(html.unescape(_TAG.sub(" ", text)))
    return text


def _clean(value: Any) -> str:
    """One line of valid text, of bounded length."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    try:
        text = str(value)[: 2 * _MAX_TEXT]
    except ValueError:  # an integer of more digits than Python writes
        return ""
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:_MAX_TEXT].encode(errors="ignore").decode()


def from_rows(rows: Iterable[dict[str, Any]], columns: pa.Schema = RAW) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=columns)


def together(raw: Iterable[pa.Table]) -> pa.Table:
    """One table of several; it has vectors (null where there are none) if any of them has."""
    return pa.concat_tables([RAW.empty_table(), *raw], promote_options="default")
