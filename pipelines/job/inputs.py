"""A job's patterns to the units that its workers read."""

import dataclasses

from pipelines.logs import line_blocks, log_format
from pipelines.manifest_entries import ITEMS, LOG, InputFile
from pipelines.options import Job
from sitn_tf import schema


@dataclasses.dataclass(frozen=True)
class Input:
    """A unit of a domain's log (kind LOG) or item files (ITEMS)."""

    domain: str
    kind: str
    unit: line_blocks.Unit


def plan(job: Job) -> list[Input]:
    """Everything to read.

    Raises:
      InputError: a file is missing, empty or of no known format.
    """
    inputs = [
        Input(domain, kind, unit)
        for kind, name, given in ((LOG, "logs", job.logs), (ITEMS, "items", job.items))
        for domain in schema.DOMAINS
        if given.get(domain)
        for unit in line_blocks.plan(
            f"{name}.{domain}", given[domain], job.file_format, job.block_bytes
        )
    ]
    for entry in inputs:
        if entry.kind == LOG and entry.unit.kind == "csv":
            log = job.formats[entry.domain]
            log_format.check_columns(entry.unit.path, entry.unit.columns, log, entry.domain)
    return inputs


def describe(inputs: list[Input]) -> list[InputFile]:
    """The files, for the manifest."""
    files = {
        (i.domain, i.kind, i.unit.path): InputFile(i.unit.path, i.domain, i.kind, i.unit.file_bytes)
        for i in inputs
    }
    return [files[key] for key in sorted(files)]
