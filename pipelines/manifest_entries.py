"""Entries of manifest.json and checksums.json, as the job writes and verification reads them."""

import dataclasses
import hashlib
import json
from typing import Any

from pipelines.logs.log_format import LogFormat
from pipelines.options import ItemFields, Job
from sitn_tf import schema

LOG, ITEMS, DATA_SET = "log", "items", "data set"
"""Kinds of inputs; the last is a data set that was extended."""


@dataclasses.dataclass(frozen=True)
class InputFile:
    """What a data set was made of.

    Attributes:
      path, bytes: of the file or, of a data set, its folder and its kept events; local paths are
        absolute.
      domain: "" of a data set.
      kind: LOG, ITEMS or DATA_SET.
      dataset_hash: of a data set.
      file_format: of a file, one of line_blocks.KINDS.
      log: how the lines of a log are read.
      items: which fields of an item file are read. Of a data set that is extended the next day's
        files may be of other formats.
    """

    path: str
    domain: str
    kind: str
    bytes: int
    dataset_hash: str | None = None
    file_format: str | None = None
    log: LogFormat | None = None
    items: ItemFields | None = None


KEPT, KEPT_PARTS = "events", "parts.json"
"""The folder of what a data set keeps to be extended, and the file in it that says what is there.

Its `sha256` has the checksum of each other file by name, its `whole` that of all it says itself.
"""
KEPT_TITLES = f"{KEPT}/titles.arrow"


def kept_items(domain: str) -> str:
    """Where a data set keeps all raw items of a domain."""
    return f"{KEPT}/{domain}-items.arrow"


def kept_checksum(kept: dict[str, Any]) -> str:
    """Of what KEPT_PARTS says."""
    said = {name: value for name, value in kept.items() if name != "whole"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


REQUESTS = {"requests": schema.TARGET, "source_requests": schema.SOURCE}
"""Names of the accounts of requests, and their domains."""


def stages(job: Job) -> tuple[str, ...]:
    """What records a job writes: source requests only if asked to."""
    return (schema.STAGE1, *(schema.STAGE_OF_REQUESTS[d] for d in job.request_domains))


def dataset_hash(checksums: dict[str, str]) -> str:
    """Identity of a data set's content: of the checksums of its files."""
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()[:32]


def negatives(job: Job, vocabularies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How the negatives of target requests came to be (schema.Manifest)."""
    if job.impressions():
        return {"kind": "impressions", "per_click": None, "power": None, "seed": job.seed,
                "sampling_rate": 1.0}  # fmt: skip
    alternatives = vocabularies[schema.vocabulary_name(schema.TARGET, schema.ITEM)]["size"]
    alternatives = max(1, alternatives - schema.FIRST_ID - 1)
    return {
        "kind": "sampled",
        "per_click": job.negatives,
        "power": job.negative_power,
        "seed": job.seed,
        "sampling_rate": min(1.0, job.negatives / alternatives),
    }
