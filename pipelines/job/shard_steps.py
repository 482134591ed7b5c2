"""The two passes over a shard: its events sorted and counted, then its records written."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

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


@dataclasses.dataclass(frozen=True)
class SortedShard:
    """A shard after its first pass.

    Attributes:
      shard: its number.
      events, rows: by domain, files of sorted events and how many they hold.
      counts: by domain, files of item counts.
      filtered: by domain, events filtered by rule.
      shared_users: users with clicks in both domains.
    """

    shard: int
    events: dict[str, str]
    rows: dict[str, int]
    counts: dict[str, str]
    filtered: dict[str, dict[str, int]]
    shared_users: int


def sort_shard(
    element: tuple[int, Iterable[shards.Part]], cutoffs: request_rules.Cutoffs, work: Work
) -> SortedShard:
    """First pass over a shard: sorted, without duplicates, items of the training period counted."""
    shard, parts = element[0], list(element[1])
    job = work.job
    tables, filtered, event_paths = {}, {}, {}
    for domain in schema.DOMAINS:
        of_domain = [p for p in parts if p.domain == domain]
        tables[domain], filtered[domain] = shards.load(
            of_domain, job.formats[domain].schema, job.max_user_events
        )
        event_paths[domain] = work.place(f"sorted-{domain}-{shard}")
        files.write_table(event_paths[domain], tables[domain])
    users, (source, target) = shards.coded([tables[d] for d in schema.DOMAINS])
    plan = request_rules.plan(source, target, column_hashes.hash_strings(users), job, cutoffs)
    count_paths = {}
    for domain, events in ((schema.SOURCE, source), (schema.TARGET, target)):
        count_paths[domain] = work.place(f"counts-{domain}-{shard}")
        counted = vocabulary.count_items(events, plan.user_cutoff)
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
        target = self._vocabularies[schema.TARGET]
        self._popularity = negatives.Popularity(
            target.items, target.clicks, self._work.job.negative_power
        )
        self._loaded = paths

    def process(
        self,
        element: SortedShard,
        vocabularies: dict[str, str],
        cutoffs: request_rules.Cutoffs,
        shared_users: int,
    ) -> Iterator[dict[str, Any]]:
        """One summary a shard. `shared_users` is only waited for: it has been checked."""
        self._load(vocabularies)
        job = self._work.job
        tables = {d: files.read_table_batches(path) for d, path in element.events.items()}
        shard = stage_records.prepare(tables, job, cutoffs, self._vocabularies)
        filtered = dict(shard.plan.filtered)
        statistics_path = self._work.place(f"statistics-{element.shard}")
        found = feature_statistics.ShardStatistics(shard)
        with _ShardWriters(self._work, element.shard) as writers:
            for chunk in stage_records.stage1(shard, job):
                writers.write(chunk)
                found.add(chunk)
            for chunk in stage_records.stage2(shard, job, self._popularity, filtered):
                writers.write(chunk)
                found.add(chunk)
        files.write_json(statistics_path, found.summary())
        yield {
            "shard": element.shard,
            "events": element.events,
            "rows": element.rows,
            "written": writers.summary(),
            "statistics": statistics_path,
            "requests": len(shard.plan.requests.user),
            "requests_filtered": filtered,
            "events_filtered": element.filtered,
        }


class _ShardWriters:
    """The open files of one shard, one a stage and split that has records."""

    def __init__(self, work: Work, shard: int) -> None:
        self._work, self._shard = work, shard
        self._open: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._files: dict[tuple[str, str], dict[str, Any]] = {}

    def __enter__(self) -> "_ShardWriters":
        return self

    def __exit__(self, *exception: object) -> None:
        for context, _ in self._open.values():
            context.__exit__(None, None, None)

    def write(self, chunk: stage_records.Chunk) -> None:
        key = (chunk.stage, chunk.split)
        if key not in self._open:
            path = self._work.place(f"{chunk.stage}-{chunk.split}-{self._shard}")
            context = files.writing(path)
            self._open[key] = (context, context.__enter__())
            self._files[key] = {
                "stage": chunk.stage, "split": chunk.split, "path": path,
                "records": 0, "bytes": 0, "sha256": hashlib.sha256(),
            }  # fmt: skip
        data = stage_records.encode(chunk)
        self._open[key][1].write(data)
        entry = self._files[key]
        entry["records"] += chunk.rows
        entry["bytes"] += len(data)
        entry["sha256"].update(data)

    def summary(self) -> list[dict[str, Any]]:
        return [{**entry, "sha256": entry["sha256"].hexdigest()} for entry in self._files.values()]
