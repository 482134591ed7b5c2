"""RAW rows of item files, and a vocabulary → the item table: row r is of the item of id r."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.records import item_files, shards, vocabulary
from sitn_tf import schema

PART_ROWS = 1 << 18
"""Items whose rows of item files, or of an item table, are made at once."""
_LARGE = {pa.string(): pa.large_string(), pa.large_binary(): pa.large_binary()}
_NONE_OF: dict[pa.DataType, tuple[Any, pa.DataType]] = {
    pa.large_string(): ("", pa.string()),
    pa.large_binary(): (b"", pa.large_binary()),
}


@dataclasses.dataclass(frozen=True)
class Described:
    """What item files say of a vocabulary's items; a copy of their rows is made a part at a time.

    Attributes:
      items: the vocabulary's, in order of their ids: string [V].
      read: rows that the files have, of whatever items.
      texts: by RAW column but the item's, of the files' rows of these items: large strings [R].
      row: of each item among those, -1 where files lack it: int64 [V].
    """

    items: pa.Array
    read: int
    texts: dict[str, pa.Array]
    row: np.ndarray

    @classmethod
    def of(cls, raw: Iterable[pa.Table], known: vocabulary.Vocabulary) -> "Described":
        """Reads files of RAW rows one after the other.

        Where files repeat an item, its first row by text counts; of equal ones that with the
        highest vector, as bytes, so that any goes before none.
        """
        read, kept, places = 0, [], [np.empty(0, np.int64)]
        for table in raw:
            ids = known.ids(table[schema.ITEM].combine_chunks())
            there = ids != schema.OOV_ID
            read += len(table)
            kept.append(table.filter(pa.array(there)))
            places.append(ids[there] - schema.FIRST_ID)
        texts = _large_columns(item_files.together(kept).drop_columns([schema.ITEM]))
        place = np.concatenate(places)
        row = np.full(len(known.items), -1, np.int64)
        row[place] = np.arange(len(place))
        repeated = np.flatnonzero(np.bincount(place, minlength=len(row))[place] > 1)
        order = repeated[_by_text(texts, repeated)]
        row[place[order[::-1]]] = order[::-1]  # what is written last stays: the first by text
        return cls(known.items, read, texts, row)

    @property
    def there(self) -> np.ndarray:
        """Whether the files have the item: bool [V]."""
        return self.row >= 0

    def parts(self, *names: str) -> Iterator[pa.Table]:
        """RAW rows of the items in order, some at a time; "" where nothing is known.

        Args:
          names: these columns alone; all if empty.
        """
        for begin in range(0, max(len(self.items), 1), PART_ROWS):
            row = self.row[begin : begin + PART_ROWS]
            place = pa.array(row, mask=row < 0)
            part = {schema.ITEM: self.items.slice(begin, PART_ROWS)}
            for name in names or self.texts:
                taken = self.texts[name].take(place)
                none, narrow = _NONE_OF[taken.type]
                part[name] = pc.fill_null(taken, none).cast(narrow)
            yield pa.table(part)

    def column(self, name: str) -> pa.ChunkedArray:
        """A RAW column of the items [V], "" where nothing is known."""
        return pa.chunked_array([part[name].combine_chunks() for part in self.parts(name)])


def _large_columns(rows: pa.Table) -> dict[str, pa.Array]:
    """A table's columns, each one array: a string array has at most 2 GiB, a large one any size."""
    columns = {}
    for name in rows.column_names:
        large = rows[name].cast(_LARGE[rows[name].type])
        rows = rows.drop_columns([name])
        columns[name] = pa.concat_arrays([pa.array([], large.type), *large.chunks])
    return columns


def _by_text(texts: dict[str, pa.Array], rows: np.ndarray) -> np.ndarray:
    """The order of some rows [n] by all their texts, of equal ones that of the highest vector."""
    some = pa.table({name: column.take(pa.array(rows)) for name, column in texts.items()})
    keys = [
        (name, "descending" if name == schema.VECTOR else "ascending") for name in some.column_names
    ]
    return np.asarray(pc.sort_indices(some, sort_keys=keys))


def words(titles: pa.Array, longest: int) -> tuple[pa.Array, np.ndarray]:
    """Lower-case alphanumeric words of titles [n]: all of them, and offsets int64 [n + 1]."""
    spaced = pc.replace_substring_regex(pc.utf8_lower(titles), r"[^\pL\pN]+", " ")
    split = pc.split_pattern(pc.utf8_trim_whitespace(spaced), " ")
    split = pc.list_slice(split, 0, longest)
    flat = split.flatten()
    lengths = np.array(pc.list_value_length(split).to_numpy(), np.int64)
    empty = np.asarray(pc.equal(pc.utf8_trim_whitespace(spaced), ""))  # "" splits to [""]
    owner = np.repeat(np.arange(len(titles)), lengths)
    lengths[empty] = 0
    flat = flat.filter(pa.array(~empty[owner]))
    return flat, np.concatenate([[0], np.cumsum(lengths)])


def count_tokens(tokens: pa.Array) -> pa.Table:
    """How often each occurs, as clicks and as impressions (vocabulary.COUNTS)."""
    token, distinct = shards.ranked(tokens)
    counts = np.bincount(token, minlength=len(distinct)).astype(np.int64)
    return pa.table([distinct, counts, counts], schema=vocabulary.COUNTS)


def vocabulary_of(
    counts: pa.Table, minimum: int, most: int | None, known: pa.Array | None = None
) -> pa.Array:
    """Counted tokens (vocabulary.COUNTS) by descending count, ties by text; `known` come first."""
    ordered = vocabulary.ordered(counts, minimum, known)[vocabulary.ITEM].combine_chunks()
    return ordered if most is None else ordered.slice(0, max(most, len(known or [])))


def table_parts(
    items: vocabulary.Vocabulary,
    described: Described,
    vocabularies: dict[str, pa.Array],
    title_length: int,
) -> Iterator[pa.Table]:
    """The item table (schema.ITEM_TABLE_COLUMNS) in parts: two reserved rows, then the items."""
    begin = 0
    for raw in described.parts():
        of_part = slice(begin, begin + len(raw))
        counts = items.clicks[of_part], items.impressions[of_part]
        part = _rows(raw, counts, vocabularies, title_length)
        yield part if begin else pa.concat_tables([_RESERVED, part]).combine_chunks()
        begin += len(raw)


_RESERVED = pa.table(
    {
        schema.ITEM: ["", ""],
        schema.TITLE: ["", ""],
        schema.COUNT: pa.array([0, 0], pa.int64()),
        schema.IMPRESSIONS: pa.array([0, 0], pa.int64()),
        schema.TITLE_WORDS: pa.array([[], []], pa.list_(pa.int32())),
        **{
            name: pa.array([schema.PAD_ID, schema.OOV_ID], pa.int32())
            for name in schema.CATEGORICAL_ITEM_FEATURES
        },
    }
).select(schema.ITEM_TABLE_COLUMNS)


def _rows(
    raw: pa.Table,
    counts: tuple[np.ndarray, np.ndarray],
    vocabularies: dict[str, pa.Array],
    title_length: int,
) -> pa.Table:
    """RAW rows with their (clicks, impressions) to rows of the item table."""
    flat, offsets = words(raw[schema.TITLE].combine_chunks(), title_length)
    ids = vocabulary.ids_of(flat, vocabularies[schema.TITLE_WORDS])
    known = ids != schema.OOV_ID  # rare words say nothing: left out
    kept = np.concatenate([[0], np.cumsum(known)])[offsets]
    columns = {
        schema.ITEM: raw[schema.ITEM],
        schema.TITLE: raw[schema.TITLE],
        schema.COUNT: pa.array(counts[0]),
        schema.IMPRESSIONS: pa.array(counts[1]),
        schema.TITLE_WORDS: pa.ListArray.from_arrays(
            pa.array(kept, pa.int32()), pa.array(ids[known], pa.int32())
        ),
    }
    for name in schema.CATEGORICAL_ITEM_FEATURES:
        of_items = vocabulary.ids_of(raw[name].combine_chunks(), vocabularies[name])
        columns[name] = pa.array(of_items, pa.int32())
    return pa.table({name: columns[name] for name in schema.ITEM_TABLE_COLUMNS})
