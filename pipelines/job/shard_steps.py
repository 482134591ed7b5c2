"""The two passes over shards: their events sorted and counted, then their records written.

Neighbouring shards write their records to the same files, so that files are of a size that
trainers want however many shards there are.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np
from apache_beam.utils import shared

from pipelines import facts
from pipelines.job import preconditions, shuffle
from pipelines.job.summary import GroupFacts, SortedShard, WrittenFile
from pipelines.job.workspace import Work
from pipelines.logs import files
from pipelines.options import Job
from pipelines.records import (
    column_hashes,
    negatives,
    request_rules,
    shards,
    stage_records,
    vocabulary,
)
from pipelines.statistics import feature_statistics
from sitn_tf import schema

COUNTS = "counts"
FILE_BYTES = 128 << 20
"""Of the training records of stage 2 in a file, as far as can be known before."""
MOST_BYTES = 192 << 20
"""Of records in a file, if it has more than one chunk of them."""
_FEW_FILES = 16
_RECORD_BYTES, _ID_BYTES = 200, 2
"""Of a record without ids and of an id in it: measured on three data sets, within a fifth."""
_TIME_BYTES = 5
"""Of a time of this century as a varint."""


def sort_shard(
    element: tuple[int, Iterable[shuffle.Moved]], cutoffs: request_rules.Cutoffs, work: Work
) -> Iterator[Any]:
    """First pass over a shard: sorted, without duplicates; item counts of training on the side."""
    shard, moved = element
    job = work.job
    loading = {
        domain: shards.Loading(job.formats[domain].schema, job.max_user_events)
        for domain in schema.DOMAINS
    }
    for domain, batch in shuffle.batches(moved, job):
        loading[domain].add(batch)
    tables, filtered, event_paths = {}, {}, {}
    for domain in schema.DOMAINS:
        tables[domain], filtered[domain] = loading.pop(domain).finish()
        event_paths[domain] = work.place(f"sorted-{domain}-{shard}")
    sums = files.write_tables([(event_paths[domain], table) for domain, table in tables.items()])
    users, events = shards.coded(tables)
    plan = request_rules.plan(events, column_hashes.hash_strings(users), job, cutoffs)
    for domain in schema.DOMAINS:
        counted = vocabulary.count_items(events[domain], plan.user_cutoff)
        for element_of_counts in shuffle.divide_counts(counted, domain, shard, work):
            yield beam.pvalue.TaggedOutput(COUNTS, element_of_counts)
    both = np.intersect1d(plan.clicks[schema.SOURCE].user, plan.clicks[schema.TARGET].user)
    rows = {domain: len(table) for domain, table in tables.items()}
    expected = _expected_bytes(plan.asked[schema.TARGET], job)
    sha256 = {domain: sums[path] for domain, path in event_paths.items()}
    yield SortedShard(shard, event_paths, sha256, rows, filtered, len(both), expected)


def _expected_bytes(asked: request_rules.Asked, job: Job) -> int:
    """Of the training records of a shard's target requests."""
    train = asked.split == request_rules.SPLIT_CODES[schema.TRAIN]
    clicks = sum(int((stop - start)[train].sum()) for start, stop in asked.history.values())
    ids, times = clicks, clicks if job.click_times else 0
    if job.impressions():
        ids += int((asked.requests.stop - asked.requests.start)[train].sum())
    else:
        ids += int(train.sum()) * (1 + job.negatives)
    return int(train.sum()) * _RECORD_BYTES + ids * _ID_BYTES + times * _TIME_BYTES


def count_groups(record_bytes: int, job: Job) -> int:
    """How many groups of shards write their records together.

    As many as `record_files` says or, if that is 0, as make files of FILE_BYTES of what is expected
    of all; but one a shard where there are few, as training shuffles files too.
    """
    wanted = job.record_files or max(_FEW_FILES, -(-record_bytes // FILE_BYTES))
    return min(job.shards, wanted)


def settle_groups(
    checked: request_rules.Cutoffs, sizes: Iterable[tuple[int, int]], job: Job
) -> int:
    """`count_groups` of all shards, once it is sure that there is anything to write.

    Args:
      checked: only waited for: of logs whose lines were all rejected, that is what to say.
      sizes: (shared users, record bytes) of each shard.

    Raises:
      InputError: no user has clicks in both logs.
    """
    shared_users = record_bytes = 0
    for users, expected in sizes:
        shared_users += users
        record_bytes += expected
    preconditions.check_shared_users(shared_users)
    return count_groups(record_bytes, job)


class _Known:
    """What all shards need: the items that have ids, and the popularity that draws negatives."""

    def __init__(self, paths: dict[str, str], job: Job) -> None:
        self.vocabularies = {
            domain: vocabulary.Vocabulary.of(files.read_table_batches(path))
            for domain, path in paths.items()
        }
        self.popularity = {}
        for domain in job.request_domains:
            known = self.vocabularies[domain]
            self.popularity[domain] = negatives.Popularity(
                known.items, known.clicks, job.negative_power
            )


class WriteRecords(beam.DoFn):
    """Second pass over neighbouring shards: records, as TFRecord files by stage and split."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._shared = shared.Shared()

    def process(
        self,
        element: tuple[int, Iterable[SortedShard]],
        groups: int,
        vocabularies: dict[str, str],
        cutoffs: request_rules.Cutoffs,
    ) -> Iterator[GroupFacts]:
        """The facts of a group."""
        job, (group, members) = self._work.job, element
        # one in memory for all threads of a worker
        known = self._shared.acquire(lambda: _Known(vocabularies, job), tag=str(vocabularies))
        members = sorted(members, key=lambda member: member.shard)
        filtered: dict[str, Counter[str]] = {domain: Counter() for domain in schema.DOMAINS}
        requests: Counter[str] = Counter()
        merged: Counter[str] = Counter()
        requests_filtered: dict[str, Counter[str]] = {d: Counter() for d in job.request_domains}
        statistics = feature_statistics.Statistics()
        with _Writers(self._work, group) as writers:
            # the next shard's two files are on their way while one is written
            paths = (path for member in members for path in member.events.values())
            tables_of = files.ahead(files.read_table_batches, paths, at_once=3)
            for member in members:
                tables = {domain: next(tables_of) for domain in member.events}
                shard = stage_records.prepare(tables, job, cutoffs, known.vocabularies)
                of_shard = feature_statistics.ShardStatistics(shard)
                for chunk in _chunks(shard, job, known, requests_filtered):
                    writers.write(chunk)
                    of_shard.add(chunk)
                statistics = feature_statistics.Statistics.of([statistics, of_shard.summary()], {})
                for domain, counts in member.filtered.items():
                    filtered[domain].update(counts)
                for domain, asked in shard.plan.asked.items():
                    requests[domain] += len(asked.requests.user)
                    merged[domain] += asked.requests.merged
        path = self._work.place(f"statistics-{group}")
        files.write_text(path, json.dumps(facts.to_json(statistics)))
        kept = tuple(members) if job.keep_events else ()
        yield GroupFacts(
            group,
            groups,
            kept,
            filtered,
            writers.written(),
            path,
            requests,
            requests_filtered,
            merged,
        )


def _chunks(
    shard: stage_records.Shard, job: Job, known: _Known, filtered: dict[str, Counter[str]]
) -> Iterator[stage_records.Chunk]:
    """A shard's records; counts into `filtered`, by domain, the requests left out by rule."""
    yield from stage_records.stage1(shard, job)
    for domain, asked in shard.plan.asked.items():
        filtered[domain].update(asked.filtered)
        yield from stage_records.requests(
            shard, job, domain, known.popularity[domain], filtered[domain]
        )


@dataclasses.dataclass
class _OpenFile:
    path: str
    stream: BinaryIO
    records: int = 0
    bytes: int = 0
    sha256: Any = dataclasses.field(default_factory=hashlib.sha256)


class _Writers(contextlib.ExitStack):
    """The files of a group: of each stage and split that has records, one that is written to.

    Another is begun where one would grow beyond MOST_BYTES.
    """

    def __init__(self, work: Work, group: int) -> None:
        super().__init__()
        self._work, self._group = work, group
        self._files: dict[tuple[str, str], list[_OpenFile]] = {}

    def write(self, chunk: stage_records.Chunk) -> None:
        key, data = (chunk.stage, chunk.split), stage_records.encode(chunk)
        of_split = self._files.setdefault(key, [])
        if not of_split or of_split[-1].bytes + len(data) > MOST_BYTES:
            if of_split:
                of_split[-1].stream.close()
            path = self._work.place(f"{chunk.stage}-{chunk.split}-{self._group}")
            of_split.append(_OpenFile(path, self.enter_context(files.writing(path))))
        file = of_split[-1]
        file.stream.write(data)
        file.records += chunk.rows
        file.bytes += len(data)
        file.sha256.update(data)

    def written(self) -> tuple[WrittenFile, ...]:
        return tuple(
            WrittenFile(*key, f.path, f.records, f.bytes, f.sha256.hexdigest())
            for key, of_split in self._files.items()
            for f in of_split
        )
