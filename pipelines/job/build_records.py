"""The data set job as a Beam pipeline: elements are blocks and shards, never lines."""

import dataclasses
import json
from typing import Any

import apache_beam as beam

from pipelines.job import item_steps, parse_steps, preconditions, shard_steps
from pipelines.job.workspace import Work
from pipelines.logs import files, line_blocks, line_counts
from pipelines.logs.line_counts import LineCounts
from pipelines.records import request_rules

SUMMARY_FILE = "summary.json"


def write_summary(found: list[tuple[str, Any]], path: str) -> None:
    """Writes all that the finish needs to know, whole or not at all."""
    summary: dict[str, list[Any]] = {}
    for name, value in found:
        summary.setdefault(name, []).append(value)
    attempt = files.attempt_path(*path.rsplit("/", 1))
    files.write_json(attempt, summary)
    files.rename(attempt, path)


def _described_counts(element: tuple[str, LineCounts]) -> tuple[str, dict[str, Any]]:
    what, counts = element
    return "lines", {
        "what": what,
        "total": counts.total,
        "events": counts.events,
        "filtered": dict(counts.filtered),
        "rejected": dict(counts.rejected),
        "reject_files": [path for _, _, path in sorted(counts.reject_files)],
    }


def _described_cutoffs(
    both: tuple[request_rules.Cutoffs, line_counts.TimeHistogram],
) -> tuple[str, dict[str, Any]]:
    return "cutoffs", {"cutoffs": dataclasses.asdict(both[0]), "times": both[1].as_json()}


@dataclasses.dataclass
class BuildRecords(beam.PTransform):
    """Units of logs and item files to the files of a data set and a summary of them.

    Attributes:
      work: the job and its folder.
      logs, item_files: (domain, unit).
    """

    work: Work
    logs: list[tuple[str, line_blocks.Unit]]
    item_files: list[tuple[str, line_blocks.Unit]]

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """The whole job, a labelled step a line."""
        work = self.work
        parsed = self._units(pipeline, "Logs", self.logs) | "ParseLog" >> beam.ParDo(
            parse_steps.ParseLog(work)
        ).with_outputs(parse_steps.COUNTS, main="parts")
        described = self._units(
            pipeline, "ItemFiles", self.item_files
        ) | "ParseItems" >> beam.ParDo(parse_steps.ParseItems(work)).with_outputs(
            parse_steps.COUNTS, main="files"
        )
        log_counts = parsed[parse_steps.COUNTS] | "SumLogs" >> beam.CombinePerKey(
            preconditions.MergeCounts()
        )
        item_counts = (
            described[parse_steps.COUNTS]
            | ("SumItems" >> beam.CombinePerKey(preconditions.MergeCounts()))
            | "CheckItems" >> beam.Map(preconditions.check_items, work.job)
        )
        decided = (
            pipeline
            | "Carried" >> beam.Create([work.carried.times])
            | "Decide"
            >> beam.Map(preconditions.decide_cutoffs, beam.pvalue.AsDict(log_counts), work.job)
        )
        cutoffs = decided | "Cutoffs" >> beam.Map(lambda both: both[0])
        carried = pipeline | "CarriedEvents" >> beam.Create(work.carried.events)
        raw_items = pipeline | "CarriedItems" >> beam.Create(work.carried.items)
        in_order = (
            (parsed["parts"], carried)
            | "AllEvents" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Sort" >> beam.Map(shard_steps.sort_shard, beam.pvalue.AsSingleton(cutoffs), work)
        )
        shared = (
            in_order
            | "SharedUsers" >> beam.Map(lambda s: s.shared_users)
            | "SumShared" >> beam.CombineGlobally(sum)
            | "CheckShared" >> beam.Map(preconditions.check_shared_users)
        )
        vocabularies = (
            in_order
            | "CountFiles" >> beam.FlatMap(lambda s: sorted(s.counts.items()))
            | "ByDomain" >> beam.GroupByKey()
            | "Vocabulary" >> beam.Map(item_steps.build_vocabulary, work)
        )
        all_items = (described["files"], raw_items) | "AllItems" >> beam.Flatten()
        item_tables = (
            {"vocabulary": vocabularies, "raw": all_items}
            | "WithItems" >> beam.CoGroupByKey()
            | "ItemTable" >> beam.Map(item_steps.write_item_table, work)
        )
        written = (
            in_order
            | "Spread" >> beam.Reshuffle()
            | "Records"
            >> beam.ParDo(
                shard_steps.WriteRecords(work),
                beam.pvalue.AsDict(vocabularies),
                beam.pvalue.AsSingleton(cutoffs),
                beam.pvalue.AsSingleton(shared),
            )
        )
        facts = (
            log_counts | "LogFacts" >> beam.Map(_described_counts),
            item_counts | "ItemFacts" >> beam.Map(_described_counts),
            decided | "CutoffFacts" >> beam.Map(_described_cutoffs),
            shared | "SharedFacts" >> beam.Map(lambda n: ("shared_users", n)),
            item_tables | "TableFacts" >> beam.Map(lambda t: ("tables", t)),
            written | "RecordFacts" >> beam.Map(lambda r: ("shards", r)),
        )
        return (
            facts
            | "Facts" >> beam.Flatten()
            | "Gather" >> beam.combiners.ToList()
            | "Summary" >> beam.Map(write_summary, files.join(work.folder, SUMMARY_FILE))
        )

    def _units(
        self, pipeline: beam.Pipeline, name: str, units: list[tuple[str, line_blocks.Unit]]
    ) -> Any:
        """Units spread over workers: one file's blocks may go anywhere."""
        return pipeline | name >> beam.Create(units) | f"Spread{name}" >> beam.Reshuffle()


def read_summary(work: Work) -> dict[str, list[Any]]:
    """What `BuildRecords` wrote last."""
    found: dict[str, list[Any]] = json.loads(files.read_text(files.join(work.folder, SUMMARY_FILE)))
    return found
