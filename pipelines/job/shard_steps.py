"""The two passes over a shard: its events sorted and counted, then its records written."""

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np

from pipelines import facts
from pipelines.job import shuffle
from pipelines.job.summary import ShardFacts, SortedShard, WrittenFile
from pipelines.job.workspace import Work
from pipelines.logs import files
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


def sort_shard(
    element: tuple[int, Iterable[shuffle.Moved]], cutoffs: request_rules.Cutoffs, work: Work
) -> SortedShard:
    """First pass over a shard: sorted, without duplicates, items of the training period counted."""
    shard, moved = element
    job = work.job
    loading = {
        domain: shards.Loading(job.formats[domain].schema, job.max_user_events)
        for domain in schema.DOMAINS
    }
    for domain, batch in shuffle.batches(moved, job):
        loading[domain].add(batch)
    tables, filtered, event_paths, count_paths = {}, {}, {}, {}
    for domain in schema.DOMAINS:
        tables[domain], filtered[domain] = loading.pop(domain).finish()
        event_paths[domain] = work.place(f"sorted-{domain}-{shard}")
        files.write_table(event_paths[domain], tables[domain])
    users, events = shards.coded(tables)
    plan = request_rules.plan(events, column_hashes.hash_strings(users), job, cutoffs)
    for domain in schema.DOMAINS:
        count_paths[domain] = work.place(f"counts-{domain}-{shard}")
        counted = vocabulary.count_items(events[domain], plan.user_cutoff)
        files.write_table(count_paths[domain], counted)
    shared = np.intersect1d(plan.clicks[schema.SOURCE].user, plan.clicks[schema.TARGET].user)
    rows = {domain: len(table) for domain, table in tables.items()}
    return SortedShard(shard, event_paths, rows, count_paths, filtered, len(shared))


class WriteRecords(beam.DoFn):
    """Second pass over a shard: its records, as TFRecord files by stage and split."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loaded: dict[str, str] | None = None

    def _load(self, paths: dict[str, str]) -> None:
        """Vocabularies are read once by a worker, not once for each shard."""
        if self._loaded == paths:
            return
        self._vocabularies = {
            domain: vocabulary.Vocabulary.of(files.read_table_batches(path))
            for domain, path in paths.items()
        }
        job = self._work.job
        self._popularity = {}
        for domain in job.request_domains:
            known = self._vocabularies[domain]
            self._popularity[domain] = negatives.Popularity(
                known.items, known.clicks, job.negative_power
            )
        self._loaded = paths

    def process(
        self,
        element: SortedShard,
        vocabularies: dict[str, str],
        cutoffs: request_rules.Cutoffs,
        shared_users: int,
    ) -> Iterator[ShardFacts]:
        """The facts of a shard. `shared_users` is only waited for: it has been checked."""
        self._load(vocabularies)
        job = self._work.job
        tables = {d: files.read_table_batches(path) for d, path in element.events.items()}
        shard = stage_records.prepare(tables, job, cutoffs, self._vocabularies)
        asked = shard.plan.asked
        filtered = {domain: dict(of_domain.filtered) for domain, of_domain in asked.items()}
        statistics_path = self._work.place(f"statistics-{element.shard}")
        statistics = feature_statistics.ShardStatistics(shard)
        with _ShardWriters(self._work, element.shard) as writers:
            of_requests = (
                stage_records.requests(shard, job, domain, self._popularity[domain], left_out)
                for domain, left_out in filtered.items()
            )
            for chunk in itertools.chain(stage_records.stage1(shard, job), *of_requests):
                writers.write(chunk)
                statistics.add(chunk)
        files.write_json(statistics_path, facts.to_json(statistics.summary()))
        yield ShardFacts(
            element,
            writers.written(),
            statistics_path,
            {domain: len(of_domain.requests.user) for domain, of_domain in asked.items()},
            filtered,
        )


@dataclasses.dataclass
class _OpenFile:
    path: str
    stream: BinaryIO
    records: int = 0
    bytes: int = 0
    sha256: Any = dataclasses.field(default_factory=hashlib.sha256)


class _ShardWriters(contextlib.ExitStack):
    """The open files of one shard, one a stage and split that has records."""

    def __init__(self, work: Work, shard: int) -> None:
        super().__init__()
        self._work, self._shard = work, shard
        self._files: dict[tuple[str, str], _OpenFile] = {}

    def write(self, chunk: stage_records.Chunk) -> None:
        key = (chunk.stage, chunk.split)
        if key not in self._files:
            path = self._work.place(f"{chunk.stage}-{chunk.split}-{self._shard}")
            self._files[key] = _OpenFile(path, self.enter_context(files.writing(path)))
        data, file = stage_records.encode(chunk), self._files[key]
        file.stream.write(data)
        file.records += chunk.rows
        file.bytes += len(data)
        file.sha256.update(data)

    def written(self) -> tuple[WrittenFile, ...]:
        return tuple(
            WrittenFile(*key, f.path, f.records, f.bytes, f.sha256.hexdigest())
            for key, f in self._files.items()
        )
