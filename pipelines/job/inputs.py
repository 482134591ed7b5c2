"""A job's patterns to the units that its workers read."""

import dataclasses
from collections.abc import Iterable

from pipelines.job.workspace import Carried
from pipelines.logs import files, line_blocks, log_format
from pipelines.manifest_entries import ITEMS, LOG, InputFile
from pipelines.options import Job
from pipelines.records import item_files, item_vectors, vector_column
from sitn_tf import schema
from sitn_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Input:
    """A unit of a domain's log (kind LOG) or item files (ITEMS)."""

    domain: str
    kind: str
    unit: line_blocks.Unit


def plan(job: Job) -> list[Input]:
    """Everything to read.

    Raises:
      InputError: a file is missing, empty, of no known format, or a CSV without a column or with
        two of one name.
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
        path, columns = entry.unit.path, entry.unit.columns
        if entry.kind == ITEMS:
            log_format.check_once(path, columns, dataclasses.asdict(job.item_fields).values())
        elif entry.unit.kind == "csv":
            log_format.check_columns(path, columns, job.formats[entry.domain], entry.domain)
    return inputs


def whole_files(units: Iterable[line_blocks.Unit]) -> list[line_blocks.Unit]:
    """Of the units of files, one a file that spans its own: a job's request names no block."""
    wholes: dict[str, line_blocks.Unit] = {}
    for unit in units:
        first = wholes.setdefault(unit.path, unit)
        wholes[unit.path] = dataclasses.replace(first, end=unit.end)
    return list(wholes.values())


def vector_width(job: Job, inputs: list[Input], carried: Carried) -> int:
    """Numbers of an item's vector: as in the data set extended, or as most of those read first.

    Returns:
      0 where no field of vectors is named.

    Raises:
      InputError: a field is named, but no item has it.
    """
    field = job.item_fields.vector
    if carried.vectors:
        return item_vectors.Basis.read(carried.vectors).width
    if not field:
        return 0
    for entry in inputs:
        if entry.kind == ITEMS:
            parsed = item_files.parse_items(entry.unit, job.item_fields, job.block_bytes)
            for _, block in parsed:
                if width := vector_column.commonest_width(block.events[schema.VECTOR]):
                    return width
    raise InputError(
        f"item_fields.vector={field}: no item of the item files has such a list of numbers",
        "check its name and the item files, or leave it out",
    )


def describe(inputs: list[Input], job: Job) -> list[InputFile]:
    """The files and how they were read, for the manifest."""
    described = {}
    for entry in inputs:
        of_log = entry.kind == LOG
        described[entry.domain, entry.kind, entry.unit.path] = InputFile(
            files.absolute(entry.unit.path),
            entry.domain,
            entry.kind,
            entry.unit.file_bytes,
            file_format=entry.unit.kind,
            log=job.formats[entry.domain] if of_log else None,
            items=None if of_log else job.item_fields,
        )
    return [described[key] for key in sorted(described)]
