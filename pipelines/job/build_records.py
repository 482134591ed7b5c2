"""The data set job as a Beam pipeline: elements are blocks and shards, never lines."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from pipelines import facts
from pipelines.job import item_steps, parse_steps, preconditions, shard_steps, shuffle, title_model
from pipelines.job.inputs import Input, whole_files
from pipelines.job.summary import CutoffFacts, Fact, LineFacts, Summary
from pipelines.job.workspace import Work
from pipelines.logs import files
from pipelines.logs.line_blocks import Unit, units_of
from pipelines.logs.line_counts import TimeHistogram
from pipelines.manifest_entries import ITEMS, LOG
from pipelines.records.request_rules import Cutoffs
from pipelines.records.shards import group_of
from sitn_tf import schema

SUMMARY_FILE = "summary.json"
_TITLES = 8192
"""Vectors of titles in a file."""


def write_summary(decided: tuple[Cutoffs, TimeHistogram], told: Iterable[Fact], path: str) -> None:
    """Writes all that the assembly needs to know, whole or not at all."""
    attempt = files.attempt_path(*path.rsplit("/", 1))
    files.write_text(attempt, json.dumps(facts.to_json(Summary.of([CutoffFacts(*decided), *told]))))
    files.rename(attempt, path)


@dataclasses.dataclass
class BuildRecords(beam.PTransform):
    """Units of logs and item files to the files of a data set and a summary of them.

    Attributes:
      work: the job and its folder.
      inputs: what to read.
    """

    work: Work
    inputs: Iterable[Input]

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """The whole job, a labelled step a line."""
        work = self.work
        parsed = self._units(pipeline, "Logs", LOG) | "ParseLog" >> beam.FlatMap(
            parse_steps.parse_log, work
        ).with_outputs(parse_steps.COUNTS, main="events")
        described = self._units(pipeline, "ItemFiles", ITEMS) | "ParseItems" >> beam.FlatMap(
            parse_steps.parse_items, work
        ).with_outputs(parse_steps.COUNTS, main="files")
        log_counts = parsed[parse_steps.COUNTS] | "SumLogs" >> beam.CombinePerKey(
            preconditions.merged
        )
        item_counts = (
            described[parse_steps.COUNTS]
            | ("SumItems" >> beam.CombinePerKey(preconditions.merged))
            | "CheckItems" >> beam.Map(preconditions.check_items, work.job)
        )
        decided = (
            pipeline
            | "Carried" >> beam.Create([work.carried.times], reshuffle=False)
            | "Decide"
            >> beam.Map(preconditions.decide_cutoffs, beam.pvalue.AsDict(log_counts), work.job)
        )
        cutoffs = decided | "Cutoffs" >> beam.Map(lambda both: both[0])
        raw_items = pipeline | "CarriedItems" >> beam.Create(work.carried.items, reshuffle=False)
        sorted_events = (
            parsed["events"]
            | "Shuffle" >> shuffle.ByShard(work)
            | "Sort"
            >> beam.FlatMap(
                shard_steps.sort_shard, beam.pvalue.AsSingleton(cutoffs), work
            ).with_outputs(shard_steps.COUNTS, main="shards")
        )
        in_order, counts = sorted_events["shards"], sorted_events[shard_steps.COUNTS]
        counted = (
            counts
            | "ByBucket" >> beam.GroupByKey()
            | "MergeCounts" >> beam.Map(item_steps.merge_counts, work)
        )
        all_items = (described["files"], raw_items) | "AllItems" >> beam.Flatten()
        items = (
            counted
            | "ByDomain" >> beam.GroupByKey()
            | "Vocabulary"
            >> beam.Map(item_steps.build_vocabulary, beam.pvalue.AsIter(all_items), work)
        )
        vocabularies = items | "Vocabularies" >> beam.Map(lambda i: (i.domain, i.vocabulary))
        titles = beam.pvalue.AsList(self._titles(pipeline, items))
        moments = items | "Moments" >> beam.FlatMap(item_steps.vector_moments, work, titles)
        vectors = cutoffs | "Basis" >> beam.FlatMap(
            item_steps.fit_vectors, beam.pvalue.AsList(moments), work, titles
        )
        item_tables = items | "ItemTable" >> beam.Map(
            item_steps.write_item_table, work, beam.pvalue.AsList(vectors), titles
        )
        sizes = in_order | "Sizes" >> beam.Map(lambda s: (s.shared_users, s.record_bytes))
        groups = beam.pvalue.AsSingleton(
            cutoffs
            | "Groups" >> beam.Map(shard_steps.settle_groups, beam.pvalue.AsIter(sizes), work.job)
        )
        written = (
            in_order
            | "WithGroup"
            >> beam.Map(lambda s, n, of: (group_of(s.shard, of, n), s), groups, work.job.shards)
            | "ByGroup" >> beam.GroupByKey()
            | "Records"
            >> beam.ParDo(
                shard_steps.WriteRecords(work),
                groups,
                beam.pvalue.AsDict(vocabularies),
                beam.pvalue.AsSingleton(cutoffs),
            )
        )
        told = (
            log_counts | "LogFacts" >> beam.MapTuple(LineFacts),
            item_counts | "ItemFacts" >> beam.MapTuple(LineFacts),
            vectors,
            item_tables,
            written,
        )
        facts_told = beam.pvalue.AsIter(told | "Facts" >> beam.Flatten())
        return decided | "Summary" >> beam.Map(
            write_summary, facts_told, files.join(work.folder, SUMMARY_FILE)
        )

    def _titles(self, pipeline: beam.Pipeline, items: Any) -> Any:
        """Files of titles with their vectors, where a model makes these."""
        work = self.work
        carried = [work.carried.titles] if work.carried.titles else []
        known = pipeline | "CarriedTitles" >> beam.Create(carried, reshuffle=False)
        if work.title_model is None:
            return known
        new = (
            items
            | "NewTitles" >> beam.FlatMap(item_steps.new_titles, work)
            | "EachTitle" >> beam.Distinct()
            | "Embed" >> beam.ptransform_fn(title_model.embed)(work.title_model)
            | "TitleBatches" >> beam.BatchElements(_TITLES, _TITLES)
            | "WriteTitles" >> beam.Map(item_steps.write_titles, work)
        )
        return (known, new) | "AllTitles" >> beam.Flatten()

    def _units(self, pipeline: beam.Pipeline, name: str, kind: str) -> Any:
        """(domain, unit) of a kind, spread over workers: one file's blocks may go anywhere."""
        files = [
            (domain, whole)
            for domain in schema.DOMAINS
            for whole in whole_files(
                entry.unit for entry in self.inputs if (entry.domain, entry.kind) == (domain, kind)
            )
        ]
        return (
            pipeline
            | name >> beam.Create(files, reshuffle=False)
            | f"UnitsOf{name}" >> beam.FlatMap(_units_of_file, self.work.job.block_bytes)
            | f"Spread{name}" >> beam.Reshuffle()
        )


def _units_of_file(element: tuple[str, Unit], block_bytes: int) -> Iterator[tuple[str, Unit]]:
    domain, whole = element
    yield from ((domain, unit) for unit in units_of(whole, block_bytes))


def read_summary(work: Work) -> Summary:
    """What `BuildRecords` wrote last."""
    text = files.read_text(files.join(work.folder, SUMMARY_FILE))
    return facts.from_json(Summary, json.loads(text))
