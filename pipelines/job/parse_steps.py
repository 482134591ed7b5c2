"""The first Beam steps: blocks of logs and item files to events, raw items and counts.

What a step writes are files of its own attempt, whose names it passes on; what is not passed
on is never read, so a bundle that fails and is run again does no harm.
"""

import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from pipelines.job.shuffle import BlockEvents
from pipelines.job.workspace import Work
from pipelines.logs import (
    event_parser,
    files,
    line_blocks,
    line_counts,
    log_format,
    parsed,
    user_hashes,
)
from pipelines.logs.line_counts import LineCounts
from pipelines.records import item_files

COUNTS = "counts"
_SHOWN_FIELDS = 20
_SHOWN_OF_NAME = 40


def parse_log(element: tuple[str, line_blocks.Unit], work: Work) -> Iterator[Any]:
    """(domain, unit of a log) to the events of its blocks, and line counts by domain on the side.

    The unit's blocks are parsed, passed on and counted one at a time.
    """
    domain, unit = element
    job = work.job
    for position, block in event_parser.parse_unit(
        unit, job.formats[domain], job.block_bytes, domain
    ):
        if work.user_key is not None:
            block = user_hashes.hash_users(block, work.user_key)
        yield BlockEvents(domain, (unit.index, position), block.events)
        counts = _counted(work, domain, unit, position, block)
        clicked = block.events[log_format.CLICKED].to_numpy()
        times = block.events[log_format.TIME].to_numpy()[clicked]
        counts.times = line_counts.TimeHistogram.of(times)
        yield beam.pvalue.TaggedOutput(COUNTS, (domain, counts))
        beam.metrics.Metrics.counter("sitn", f"{domain}_lines").inc(block.lines)


def parse_items(element: tuple[str, line_blocks.Unit], work: Work) -> Iterator[Any]:
    """(domain, unit of an item file) to (domain, file of raw items), counts on the side."""
    domain, unit = element
    what = f"{domain}_items"
    for position, block in item_files.parse_items(
        unit, work.job.item_fields, work.job.block_bytes, work.vector_width
    ):
        path = work.place(f"raw-items-{domain}-{unit.index}-{position}")
        files.write_table(path, block.events)
        counts = _counted(work, what, unit, position, block)
        yield beam.pvalue.TaggedOutput(COUNTS, (what, counts))
        yield domain, path


def _counted(
    work: Work, what: str, unit: line_blocks.Unit, position: int, block: parsed.Parsed
) -> LineCounts:
    """Counts of a block's lines; rejects are written to a file, which the counts name."""
    counts = LineCounts.of(block)
    if block.rejects:
        path = work.place(f"rejects-{what}-{unit.index}-{position}")
        files.write_text(path, parsed.reject_lines(what, unit, block.rejects))
        counts.reject_files.append((unit.index, position, path))
    for reject in block.rejects:
        if reject.reason not in counts.examples:
            counts.examples[reject.reason] = f"{unit.path} at {reject.position}"
            counts.fields[reject.reason] = _fields_of(reject, unit)
    return counts


def _fields_of(reject: parsed.Reject, unit: line_blocks.Unit) -> tuple[str, ...]:
    """Names of the fields of a rejected line; none where it has no such."""
    if unit.columns:
        return unit.columns
    try:
        value = json.loads(reject.raw)
    except (ValueError, RecursionError):
        return ()
    names = list(value) if isinstance(value, dict) else []
    return tuple(repr(name)[1:-1][:_SHOWN_OF_NAME] for name in names[:_SHOWN_FIELDS])
