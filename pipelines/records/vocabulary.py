"""Item counts of the training period to vocabularies: line i of the file has id i + 2."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import files
from pipelines.records import column_hashes, shards
from sitn_tf import schema

ITEM, CLICKS, IMPRESSIONS = "item", "clicks", "impressions"
COUNTS = pa.schema([(ITEM, pa.string()), (CLICKS, pa.int64()), (IMPRESSIONS, pa.int64())])
_FEW_ROWS = 1 << 18


def count_items(events: shards.Events, user_cutoff: np.ndarray) -> pa.Table:
    """Clicks and impressions of each item before its user's training cutoff (COUNTS)."""
    before = events.time < user_cutoff[events.user]
    clicks = np.bincount(events.item[before & events.clicked], minlength=len(events.items))
    shown = np.bincount(events.item[before], minlength=len(events.items))
    seen = shown > 0
    return pa.table([events.items.filter(pa.array(seen)), clicks[seen], shown[seen]], schema=COUNTS)


def merge_counts(tables: list[pa.Table]) -> pa.Table:
    """Sums the counts of the same item (COUNTS), sorted by item."""
    together = pa.concat_tables([COUNTS.empty_table(), *tables])
    item, items = shards.ranked(together[ITEM])
    sums = [
        np.bincount(item, together[name].to_numpy(), len(items)).astype(np.int64)
        for name in (CLICKS, IMPRESSIONS)
    ]
    return pa.table([items, *sums], schema=COUNTS)


def merged(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums the counts of the same item in any number of tables (COUNTS).

    Merges whenever as many rows have come as are merged: no row is touched more than a few times,
    and never more in memory than three times the distinct items, or a few small tables.
    """
    held, new = COUNTS.empty_table(), []
    for table in tables:
        new.append(table)
        if sum(map(len, new)) > max(len(held), _FEW_ROWS):
            held, new = merge_counts([held, *new]), []
    return merge_counts([held, *new])


def without_events(items: pa.ChunkedArray) -> pa.Table:
    """Items that item files describe, which may be in no log (COUNTS)."""
    zeros = pa.array(np.zeros(len(items), np.int64))
    return pa.table([items, zeros, zeros], schema=COUNTS)


def ordered(counts: pa.Table, minimum: int, known: pa.Array | None = None) -> pa.Table:
    """Items in order of their ids (COUNTS): by descending clicks, ties by the item.

    Args:
      counts: distinct items.
      minimum: clicks (where nothing was clicked: impressions) an item needs.
      known: items that have ids already; they keep them, new ones follow.
    """
    by_count = counts.sort_by([(CLICKS, "descending"), (ITEM, "ascending")])
    enough = pc.greater_equal(pc.max_element_wise(by_count[CLICKS], by_count[IMPRESSIONS]), minimum)
    new = by_count.filter(enough)
    if known is None:
        return new.combine_chunks()
    new = new.filter(pc.invert(pc.is_in(new[ITEM], value_set=known)))
    place = pc.index_in(known, value_set=counts[ITEM].combine_chunks())
    old = pa.table(
        [known, *(pc.fill_null(counts[n].take(place), 0) for n in (CLICKS, IMPRESSIONS))],
        schema=COUNTS,
    )
    return pa.concat_tables([old, new]).combine_chunks()


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A domain's items in order of their ids, with their training counts: [V] each."""

    items: pa.Array
    clicks: np.ndarray
    impressions: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> "Vocabulary":
        return cls(
            table[ITEM].combine_chunks(), table[CLICKS].to_numpy(), table[IMPRESSIONS].to_numpy()
        )

    def ids(self, items: pa.Array) -> np.ndarray:
        """`ids_of` distinct items [n], which are far fewer than those known: int64 [n].

        The asked are searched among the sorted hashes of the known: each time a shard asks, all
        that is known is neither made a table of nor looked through.
        """
        hashes, order = self._by_hash
        asked = column_hashes.hash_strings(items)
        ids = np.full(len(items), schema.OOV_ID, np.int64)
        left, place = np.arange(len(items)), np.searchsorted(hashes, asked)
        while len(left):  # once, unless two items have one hash
            there = place < len(hashes)
            there[there] = hashes[place[there]] == asked[left[there]]
            left, place = left[there], place[there]
            found = self.items.take(pa.array(order[place]))
            same = np.asarray(pc.equal(found, items.take(pa.array(left))), bool)
            ids[left[same]] = order[place[same]] + schema.FIRST_ID
            left, place = left[~same], place[~same] + 1
        return ids

    @functools.cached_property
    def _by_hash(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the items, ascending: uint64 [V]; the place of each in `items`: int64 [V]."""
        parts = (self.items.slice(i, _FEW_ROWS) for i in range(0, len(self.items), _FEW_ROWS))
        none = np.empty(0, np.uint64)
        hashes = np.concatenate([none, *map(column_hashes.hash_strings, parts)])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


def ids_of(tokens: pa.Array, known: pa.Array) -> np.ndarray:
    """Ids of tokens [n], OOV_ID for those that are not `known`: int64 [n]."""
    place = pc.index_in(tokens, value_set=known)
    return place.fill_null(schema.OOV_ID - schema.FIRST_ID).to_numpy() + schema.FIRST_ID


@dataclasses.dataclass(frozen=True)
class VocabularyEntry:
    """A vocabulary in the manifest.

    Attributes:
      size: number of ids, the two reserved ones included.
      sha256: of its file.
      described: items in the item files; None where it is of no items, or there are no files.
    """

    size: int
    sha256: str
    described: int | None = None


def write_text(path: str, tokens: pa.Array) -> VocabularyEntry:
    """Writes a vocabulary file: one token a line."""
    with files.hashing(path) as stream:
        for begin in range(0, len(tokens), _FEW_ROWS):
            lines = pc.binary_join_element_wise(tokens.slice(begin, _FEW_ROWS), "", "\n")
            bounds, data = column_hashes.string_buffers(lines)
            stream.write(data[bounds[0] : bounds[-1]].tobytes())
    return VocabularyEntry(len(tokens) + schema.FIRST_ID, stream.sha256)


def read_text(path: str) -> pa.Array:
    """The tokens of a vocabulary file, without an object for each."""
    with files.reading(path) as stream:
        text = stream.read()
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    bounds = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int64))
    lines = pa.Array.from_buffers(pa.large_string(), len(ends), [None, bounds, pa.py_buffer(text)])
    return pc.utf8_slice_codeunits(lines, 0, -1).cast(pa.string())
