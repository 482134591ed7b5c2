"""Events of many users to one shard's sorted events: divided, carried and put together again.

A shard's events are carried as batches of Arrow files, of which only the names travel
(`Part`), or as messages of Arrow batches (`messages`). They may come in any order: what is
loaded of them is the same. Memory is bounded by a shard, never by the log.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import files, log_format
from pipelines.records import column_hashes

Array = TypeVar("Array", int, np.ndarray)
COMPACT_ROWS = 2_000_000
"""Rows loaded before duplicates and what a user has too much of are dropped."""

MESSAGE_BYTES = 1 << 20
"""Of a message of events, where it has more than one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A batch of an Arrow file: events of one shard and domain.

    `order` is where in the inputs they come from: files are read in that order. `sha256` is of the
    file, "" where it was written by this job.
    """

    domain: str
    path: str
    batch: int
    rows: int
    order: tuple[int, int]
    sha256: str = ""

    def read(self) -> pa.Table:
        """The events.

        Raises:
          InputError: the file is of an earlier job and not as that wrote it.
        """
        return files.read_table_batches(self.path, [self.batch], self.sha256)


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


def group_of(shard: Array, shards: int, groups: int) -> Array:
    """Of user shards, in [0, shards), the group of neighbours whose records are in one file."""
    return shard * groups // shards


def by_shard(
    events: pa.Table, shards: int, column: str = log_format.USER
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(shard, its rows) of each shard that a table has rows of, in order of shards.

    Rows are divided by a column of strings: events by their user.
    """
    if not len(events):
        return
    shard = shard_of_users(events[column].combine_chunks(), shards)
    order = np.argsort(shard, kind="stable")
    table = events.take(pa.array(order)).combine_chunks()
    bounds = np.searchsorted(shard[order], np.arange(shards + 1))
    for s in np.flatnonzero(np.diff(bounds)).tolist():
        yield s, table.slice(bounds[s], bounds[s + 1] - bounds[s]).to_batches()[0]


def spill(
    events: pa.Table, shards: int, path: str, domain: str, order: tuple[int, int]
) -> list[tuple[int, Part]]:
    """Writes a table of events by shard to one file; (shard, part) of each shard with events."""
    divided = list(by_shard(events, shards))
    if divided:
        files.write_table_batches(path, [batch for _, batch in divided])
    return [
        (shard, Part(domain, path, place, batch.num_rows, order))
        for place, (shard, batch) in enumerate(divided)
    ]


def messages(batch: pa.RecordBatch) -> Iterator[bytes]:
    """A batch as Arrow IPC messages without its schema, each of MESSAGE_BYTES or of one row."""
    message = batch.serialize()
    if message.size <= MESSAGE_BYTES or batch.num_rows <= 1:
        yield message.to_pybytes()
        return
    half = batch.num_rows // 2
    yield from messages(batch.slice(0, half))
    yield from messages(batch.slice(half))


def of_message(message: bytes, schema: pa.Schema) -> pa.Table:
    """What `messages` made a message of."""
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(message), schema)])


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
    events: pa.Table,
    max_user_events: int,
    times_given: np.ndarray | None = None,
    *,
    encode: bool = False,
) -> tuple[pa.Table, np.ndarray]:
    """Sorts by (user, time, request, item), merges duplicates, keeps each user's latest.

    Rows alike in all four are one event, clicked if any was clicked.

    Args:
      events: of one domain.
      max_user_events: kept of a user.
      times_given: int64 [n], how many rows each of `events` stands for; 1 by default.
      encode: give users and items as dictionaries, which spares later steps their ranking.

    Returns:
      The table and, int64 [its rows], how many rows each of its events stands for.
    """
    if times_given is None:
        times_given = np.ones(len(events), np.int64)
    if not len(events):
        return events, times_given
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
    recent = from_the_end(user[order][starts]) < max_user_events
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
    return merged.combine_chunks(), np.add.reduceat(times_given[order], starts)[recent]


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


class Loading:
    """The events of one domain of a shard, compacted while they come.

    Neither the events nor the counts depend on the order in which they come, nor on where it
    is compacted: a user's latest events are the latest of all, and a row that was filtered is a
    duplicate if its event is kept. At most COMPACT_ROWS rows, what is kept of those before and
    one table are held at once, and twice that while compacting, however much one user has.
    """

    def __init__(self, schema: pa.Schema, max_user_events: int) -> None:
        self._schema, self._most = schema, max_user_events
        self._held, self._times_given = [schema.empty_table()], [np.empty(0, np.int64)]
        self._rows = self._new = 0

    def add(self, events: pa.Table) -> None:
        """Takes some events; their columns may be dictionaries."""
        self._held.append(events.cast(self._schema))
        self._times_given.append(np.ones(len(events), np.int64))
        self._rows += len(events)
        self._new += len(events)
        if self._new > COMPACT_ROWS:
            self._compact()

    def _compact(self, *, encode: bool = False) -> pa.Table:
        table, times = compact(
            pa.concat_tables(self._held),
            self._most,
            np.concatenate(self._times_given),
            encode=encode,
        )
        self._held, self._times_given, self._new = [table], [times], 0
        return table

    def finish(self) -> tuple[pa.Table, dict[str, int]]:
        """All events, sorted and encoded (see `compact`), and the number of rows filtered by rule.

        Rows of an event that is kept, but for one, are duplicates; all others a user had too many.
        """
        table = self._compact(encode=True)
        standing_for = int(self._times_given[0].sum())
        filtered = {
            "duplicate": standing_for - len(table),
            "user_has_too_many": self._rows - standing_for,
        }
        return table, {rule: count for rule, count in filtered.items() if count}


def load(
    tables: Iterable[pa.Table], schema: pa.Schema, max_user_events: int
) -> tuple[pa.Table, dict[str, int]]:
    """All events of one domain of a shard, in any order (see `Loading`)."""
    loading = Loading(schema, max_user_events)
    for table in tables:
        loading.add(table)
    return loading.finish()


def in_files(parts: Iterable[Part]) -> Iterator[tuple[str, pa.Table]]:
    """(domain, events) of parts, files one after the other."""
    for part in sorted(parts, key=lambda part: (part.domain, part.order)):
        yield part.domain, part.read()


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
