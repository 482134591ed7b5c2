"""Events of many users to one shard's sorted events: what Beam's shuffle carries as files.

Parsing workers write the events of each user shard as batches of Arrow files, and only
the files' names go through Beam. Memory is bounded by a shard, never by the log.
"""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import files, log_format
from pipelines.records import column_hashes

COMPACT_ROWS = 2_000_000
"""Rows loaded before duplicates and what a user has too much of are dropped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A batch of an Arrow file: events of one shard and domain.

    `order` is where in the inputs they come from: parts are loaded in that order.
    """

    domain: str
    path: str
    batch: int
    rows: int
    order: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Events:
    """One domain's events in a shard, sorted by (user, time, request, item), no duplicates.

    Attributes:
      user: int64 [n], index into the shard's users.
      item: int64 [n], index into `items`.
      time: int64 [n], seconds.
      clicked: bool [n].
      request: int64 [n], index into `requests`; zeros where the log names no requests.
      score: float32 [n] or None where the log has no scores.
      items, requests: sorted distinct strings.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    clicked: np.ndarray
    request: np.ndarray
    score: np.ndarray | None
    items: pa.Array
    requests: pa.Array

    def __len__(self) -> int:
        return len(self.user)


def shard_of_users(users: pa.Array, shards: int) -> np.ndarray:
    """Users [n] to int64 [n] in [0, shards)."""
    encoded = users.dictionary_encode()
    of_distinct = column_hashes.hash_strings(encoded.dictionary) % np.uint64(shards)
    return of_distinct.astype(np.int64)[encoded.indices.to_numpy()]


def spill(
    events: pa.Table, shards: int, path: str, domain: str, order: tuple[int, int]
) -> list[tuple[int, Part]]:
    """Writes a table of events by shard to one file; (shard, part) of each shard with events."""
    if not len(events):
        return []
    shard = shard_of_users(events[log_format.USER].combine_chunks(), shards)
    by_shard = np.argsort(shard, kind="stable")
    table = events.take(pa.array(by_shard)).combine_chunks()
    bounds = np.searchsorted(shard[by_shard], np.arange(shards + 1))
    filled = np.flatnonzero(np.diff(bounds))
    batches = [
        table.slice(bounds[s], bounds[s + 1] - bounds[s]).to_batches()[0] for s in filled.tolist()
    ]
    files.write_table_batches(path, batches)
    return [
        (int(s), Part(domain, path, i, batches[i].num_rows, order))
        for i, s in enumerate(filled.tolist())
    ]


def ranked(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Strings [n] to int64 [n] indices into their sorted distinct values, and those."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(order))


def sort_order(*keys: np.ndarray) -> np.ndarray:
    """Stable order by non-negative integer keys [n], the first the most significant."""
    bits = [int(key.max()).bit_length() if len(key) else 0 for key in keys]
    if sum(bits) > 63:
        return np.lexsort(keys[::-1])
    packed = np.zeros(len(keys[0]), np.int64)
    for key, width in zip(keys, bits, strict=True):
        packed = packed << width | key
    return np.argsort(packed, kind="stable")


def compact(
    events: pa.Table, max_user_events: int, *, encode: bool = False
) -> tuple[pa.Table, dict[str, int]]:
    """Sorts by (user, time, request, item), merges duplicates, keeps each user's latest.

    Rows alike in all four are one event, clicked if any was clicked.

    Args:
      events: of one domain.
      max_user_events: kept of a user.
      encode: give users and items as dictionaries, which spares later steps their ranking.

    Returns:
      The table and the number of rows filtered by rule.
    """
    if not len(events):
        return events, {}
    user, users = ranked(events[log_format.USER])
    item, items = ranked(events[log_format.ITEM])
    time = events[log_format.TIME].combine_chunks().to_numpy()
    keys = [user, time, item]
    if log_format.REQUEST in events.column_names:
        keys.insert(2, ranked(events[log_format.REQUEST])[0])
    order = sort_order(*keys)
    first = np.ones(len(order), bool)
    first[1:] = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    starts = np.flatnonzero(first)
    kept_users = user[order][starts]
    recent = from_the_end(kept_users) < max_user_events
    filtered = {"duplicate": len(order) - len(starts), "user_has_too_many": int((~recent).sum())}
    merged = _merged(events, order, starts)
    merged = merged if recent.all() else merged.filter(pa.array(recent))
    if encode:
        kept = order[starts][recent]
        for name, codes, distinct in (
            (log_format.USER, user, users),
            (log_format.ITEM, item, items),
        ):
            column = pa.DictionaryArray.from_arrays(pa.array(codes[kept], pa.int32()), distinct)
            merged = merged.set_column(merged.column_names.index(name), name, column)
    return merged.combine_chunks(), {rule: count for rule, count in filtered.items() if count}


def _merged(events: pa.Table, order: np.ndarray, starts: np.ndarray) -> pa.Table:
    merged = events.take(pa.array(order[starts]))
    if len(starts) == len(order):
        return merged
    clicked = events[log_format.CLICKED].combine_chunks().to_numpy(zero_copy_only=False)[order]
    columns = {log_format.CLICKED: np.logical_or.reduceat(clicked, starts)}
    if log_format.SCORE in events.column_names:
        score = events[log_format.SCORE].combine_chunks().to_numpy(zero_copy_only=False)[order]
        columns[log_format.SCORE] = np.fmax.reduceat(score, starts)
    for name, values in columns.items():
        place = merged.column_names.index(name)
        merged = merged.set_column(place, name, pa.array(values, events.schema.field(name).type))
    return merged


def from_the_end(groups: np.ndarray) -> np.ndarray:
    """For sorted groups int64 [n]: how many of the same group come after, int64 [n]."""
    last = np.searchsorted(groups, groups, side="right") - 1
    return last - np.arange(len(groups))


def load(
    parts: list[Part], schema: pa.Schema, max_user_events: int
) -> tuple[pa.Table, dict[str, int]]:
    """Reads and compacts the events of one domain of a shard, compacting while it grows."""
    filtered: dict[str, int] = {}
    loaded, rows = [schema.empty_table()], 0

    def compacted(*, encode: bool = False) -> pa.Table:
        table, dropped = compact(pa.concat_tables(loaded), max_user_events, encode=encode)
        for rule, count in dropped.items():
            filtered[rule] = filtered.get(rule, 0) + count
        return table

    for part in sorted(parts, key=lambda p: p.order):
        loaded.append(files.read_table_batches(part.path, [part.batch]).cast(schema))
        rows += part.rows
        if rows > COMPACT_ROWS:
            loaded, rows = [compacted()], 0
    return compacted(encode=True), filtered


def coded(tables: dict[str, pa.Table]) -> tuple[pa.Array, dict[str, Events]]:
    """A shard's sorted tables by domain to the users in all of them, sorted, and the events."""
    chunks = [c for t in tables.values() for c in t[log_format.USER].cast(_DICTIONARY).chunks]
    codes, users = ranked(pa.chunked_array(chunks, _DICTIONARY))
    events, begin = {}, 0
    for domain, table in tables.items():
        events[domain] = _events(table, codes[begin : begin + len(table)])
        begin += len(table)
    return users, events


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())


def _events(table: pa.Table, user: np.ndarray) -> Events:
    item, items = ranked(table[log_format.ITEM])
    request, requests = np.zeros(len(table), np.int64), pa.array([], pa.string())
    if log_format.REQUEST in table.column_names:
        request, requests = ranked(table[log_format.REQUEST])
    score = None
    if log_format.SCORE in table.column_names:
        score = table[log_format.SCORE].combine_chunks().to_numpy(zero_copy_only=False)
    return Events(
        user,
        item,
        table[log_format.TIME].combine_chunks().to_numpy(),
        table[log_format.CLICKED].combine_chunks().to_numpy(zero_copy_only=False),
        request,
        score,
        items,
        requests,
    )
