"""Item counts of the training period to vocabularies: line i of the file has id i + 2."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import files
from pipelines.records import shards
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

        The known are looked up among the asked: no table of all that is known is made each time.
        """
        place = pc.index_in(self.items, value_set=items)
        ids = np.full(len(items), schema.OOV_ID, np.int64)
        known = np.flatnonzero(np.asarray(place.is_valid()))
        ids[place.drop_null().to_numpy()] = known + schema.FIRST_ID
        return ids


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
    text = b"".join(token.as_buffer().to_pybytes() + b"\n" for token in tokens)
    return VocabularyEntry(len(tokens) + schema.FIRST_ID, files.write_bytes(path, text))


def read_text(path: str) -> pa.Array:
    with files.reading(path) as stream:
        lines = stream.read().decode().split("\n")
    return pa.array(lines[:-1], pa.string())
