"""The first Beam steps: blocks of logs and item files to spilled events, raw items and counts.

Every step writes files of its own attempt and passes on their names; what is not passed
on is never read, so a bundle that fails and is run again does no harm.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.job.options import ItemFields
from pipelines.job.workspace import Work
from pipelines.logs import event_parser, files, line_blocks, line_counts
from pipelines.logs.line_counts import LineCounts
from pipelines.records import item_files, shards

COUNTS = "counts"
_ROWS_AT_ONCE = 200_000
_SHOWN_FIELDS = 20
_SHOWN_OF_NAME = 40
_MAX_ITEM_BYTES = 1 << 22


class ParseLog(beam.DoFn):
    """(domain, unit of a log) to (shard, part), and line counts by domain on the side."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def process(self, element: tuple[str, line_blocks.Unit]) -> Iterator[Any]:
        """Parses, spills and counts the unit's blocks, one in memory at a time."""
        domain, unit = element
        log = self._work.job.formats[domain]
        for position, parsed in parse_unit(unit, log, self._work.job.block_bytes, domain):
            order = (unit.index, position)
            path = self._work.place(f"parsed-{domain}-{unit.index}-{position}")
            yield from shards.spill(parsed.events, self._work.job.shards, path, domain, order)
            counts = _counted(self._work, domain, unit, position, parsed)
            clicked = parsed.events[event_parser.CLICKED].to_numpy()
            counts.times = line_counts.TimeHistogram.of(
                parsed.events[event_parser.TIME].to_numpy()[clicked]
            )
            yield beam.pvalue.TaggedOutput(COUNTS, (domain, counts))
            beam.metrics.Metrics.counter("sitn", f"{domain}_lines").inc(parsed.lines)


class ParseItems(beam.DoFn):
    """(domain, unit of an item file) to (domain, file of raw items), counts on the side."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def process(self, element: tuple[str, line_blocks.Unit]) -> Iterator[Any]:
        """Parses the unit's blocks."""
        domain, unit = element
        fields = self._work.job.item_fields
        what = f"{domain}_items"
        for position, parsed in parse_items(unit, fields, self._work.job.block_bytes):
            path = self._work.place(f"raw-items-{domain}-{unit.index}-{position}")
            files.write_table(path, parsed.events)
            counts = _counted(self._work, what, unit, position, parsed)
            yield beam.pvalue.TaggedOutput(COUNTS, (what, counts))
            yield domain, path


def _counted(
    work: Work, what: str, unit: line_blocks.Unit, position: int, parsed: event_parser.Parsed
) -> LineCounts:
    """Counts of a block's lines; rejects are written to a file, which the counts name."""
    counts = LineCounts(parsed.lines, len(parsed.events))
    counts.filtered.update(parsed.filtered)
    if parsed.rejects:
        path = work.place(f"rejects-{what}-{unit.index}-{position}")
        files.write_text(path, reject_lines(what, unit, parsed.rejects))
        counts.reject_files.append((unit.index, position, path))
    for reject in parsed.rejects:
        counts.rejected[reject.reason] += 1
        if reject.reason not in counts.examples:
            counts.examples[reject.reason] = f"{unit.path} at {reject.position}"
            counts.fields[reject.reason] = _fields_of(reject, unit)
    return counts


def _fields_of(reject: event_parser.Reject, unit: line_blocks.Unit) -> tuple[str, ...]:
    """Names of the fields of a rejected line; none where it has no such."""
    if unit.columns:
        return unit.columns
    try:
        value = json.loads(reject.raw)
    except (ValueError, RecursionError):
        return ()
    names = list(value) if isinstance(value, dict) else []
    return tuple(repr(name)[1:-1][:_SHOWN_OF_NAME] for name in names[:_SHOWN_FIELDS])


def parse_unit(
    unit: line_blocks.Unit, log: event_parser.LogFormat, block_bytes: int, domain: str
) -> Iterator[tuple[int, event_parser.Parsed]]:
    """(position, what was parsed) of each block of a unit."""
    if unit.kind != "parquet":
        for block in line_blocks.read_blocks(unit, block_bytes, log.max_line_bytes):
            yield block.position, event_parser.parse_block(block, unit, log)
        return
    wanted = list(log.fields.values())
    with files.reading(unit.path) as stream:
        file = pq.ParquetFile(stream)
        if error := event_parser.no_column(unit.path, file.schema_arrow.names, log, domain):
            raise error
        for first, rows in _row_batches(file, unit.start, wanted):
            yield first, event_parser.parse_rows(rows, first, log)


def parse_items(
    unit: line_blocks.Unit, fields: ItemFields, block_bytes: int
) -> Iterator[tuple[int, event_parser.Parsed]]:
    """(position, what was parsed) of each block of a unit of an item file."""
    if unit.kind != "parquet":
        for block in line_blocks.read_blocks(unit, block_bytes, _MAX_ITEM_BYTES):
            yield block.position, item_files.parse_lines(block, unit, fields)
        return
    with files.reading(unit.path) as stream:
        file = pq.ParquetFile(stream)
        names = set(dataclasses.asdict(fields).values())
        wanted = [name for name in file.schema_arrow.names if name in names]
        for first, rows in _row_batches(file, unit.start, wanted):
            yield first, item_files.parse_rows(rows, first, fields)


def _row_batches(
    file: pq.ParquetFile, group: int, columns: list[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Rows of a row group, some at a time, and which row of the whole file the first is."""
    first = sum(file.metadata.row_group(earlier).num_rows for earlier in range(group))
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns):
        yield first, pa.Table.from_batches([batch])
        first += len(batch)


def reject_lines(
    domain: str, unit: line_blocks.Unit, rejects: Iterable[event_parser.Reject]
) -> str:
    """Rejects as JSON lines: where the line is, why it was not used, and its text.

    `pipelines.replay` makes logs of them again.
    """
    described = []
    for reject in sorted(rejects, key=lambda r: r.position):
        entry: dict[str, Any] = {
            "domain": domain,
            "file": unit.path,
            "position": reject.position,
            "reason": reject.reason,
        }
        try:
            entry["line"] = reject.raw.decode()
        except UnicodeDecodeError:
            entry["line_hex"] = reject.raw.hex()
        if not reject.whole:
            entry["cut"] = True
        if unit.columns:
            entry["columns"] = unit.columns
        described.append(json.dumps(entry))
    return "".join(line + "\n" for line in described)
