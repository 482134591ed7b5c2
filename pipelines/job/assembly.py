"""A job's files to a data set directory that becomes visible only when whole."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines import facts, manifest_entries
from pipelines.job import build_records, extension, inputs, tfds_metadata
from pipelines.job.summary import LineFacts, PlacedFile, Summary, TableFacts
from pipelines.job.workspace import Carried, Work
from pipelines.logs import files
from pipelines.logs.line_counts import Account
from pipelines.options import Job
from pipelines.records import request_rules
from pipelines.records.vocabulary import VocabularyEntry
from pipelines.statistics import feature_statistics, page
from sitn_tf import schema
from sitn_tf.errors import InputError

PAGE_FILE = "statistics.html"
_REJECTS_BYTES = 64 << 20
_PACKAGES = ("apache-beam", "numpy", "pyarrow", "sitn_tf", "tensorflow-datasets")


def assemble(work: Work, root: str, to_read: list[inputs.Input]) -> schema.Manifest:
    """Moves a job's files to their places under `root` and describes them.

    Args:
      work: the job that ran; its folder lies in `root`.
      root: the data set directory to be.
      to_read: everything that was read.

    Raises:
      InputError: no request is left to train on.
    """
    job, summary = work.job, build_records.read_summary(work)
    checksums: dict[str, str] = {}
    shards, records = _place_shards(root, summary, job, checksums)
    vocabularies = {
        name: facts.without_none(entry)
        for name, entry in sorted(_place_tables(root, summary.tables, checksums).items())
    }
    if summary.vectors:
        _place([summary.vectors.basis], root, checksums)
    lines = account(summary, work.carried)
    check_trainable(records, lines["requests"], job)
    if job.keep_events:
        extension.keep(root, summary)
    _place_rejects(root, summary.lines)
    for stage in records:
        tfds_metadata.write(root, stage, schema.features_of(stage, job.click_times), {
            split: [shards[p] for p in sorted(shards) if p.startswith(_prefix(stage, split))]
            for split in records[stage]
        }, {
            split: sum(file.bytes for file in summary.written(stage) if file.split == split)
            for split in records[stage]
        })  # fmt: skip
    files.write_json(files.join(root, schema.CHECKSUMS_FILE), checksums)
    described = [*inputs.describe(to_read, job), *extension.ancestry(job)]
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(job.click_times),
        dataset_hash=manifest_entries.dataset_hash(checksums),
        inputs=[facts.without_none(entry) for entry in described],
        options=facts.to_json(job) | {"record_files": max(g.groups for g in summary.groups)},
        split={"kind": job.split, **dataclasses.asdict(summary.cutoffs.cutoffs)},
        max_history=job.max_history,
        negatives=manifest_entries.negatives(job, vocabularies),
        lines={what: facts.without_none(entry) for what, entry in lines.items()},
        vocabularies=vocabularies,
        records=records,
        shards=shards,
        versions=versions(),
        vectors=_vectors(work, summary),
        click_times=job.click_times,
    )
    write_statistics(root, summary, manifest)
    return manifest


def write_statistics(root: str, summary: Summary, manifest: schema.Manifest) -> None:
    """Statistics for TFDV, as proto and as JSON, and the page for people."""
    from google.protobuf import json_format

    merged = feature_statistics.Statistics.of(
        # few in memory at a time: together they need more than all else the job does
        (
            facts.from_json(feature_statistics.Statistics, json.loads(text))
            for text in files.ahead(
                files.read_text, (group.statistics for group in summary.groups), at_once=4
            )
        ),
        {table.domain: table.popularity for table in summary.tables},
    )
    stages = {stage: manifest.features_of(stage) for stage in manifest.records}
    proto = feature_statistics.as_proto(merged, stages)
    content = proto.SerializeToString(deterministic=True)
    files.write_bytes(files.join(root, feature_statistics.STATISTICS_PROTO), content)
    text = json_format.MessageToJson(proto, preserving_proto_field_name=True)
    files.write_text(files.join(root, feature_statistics.STATISTICS_JSON), text)
    files.write_text(files.join(root, PAGE_FILE), page.render(merged, manifest))


def _prefix(stage: str, split: str) -> str:
    return schema.shard_glob(stage, split).removesuffix("*")


def _place_shards(
    root: str, summary: Summary, job: Job, checksums: dict[str, str]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Numbers the TFRecord files of each split in order of their user shards."""
    lengths: dict[str, int] = {}
    records: dict[str, dict[str, int]] = {}
    moves = []
    for stage in manifest_entries.stages(job):
        for split in schema.SPLITS[stage]:
            written = [f for f in summary.written(stage) if f.split == split and f.records]
            for index, file in enumerate(written):
                place = f"{_prefix(stage, split)}{index:05d}-of-{len(written):05d}"
                moves.append((file.path, files.join(root, place)))
                lengths[place] = file.records
                checksums[place] = file.sha256
            records.setdefault(stage, {})[split] = sum(file.records for file in written)
    files.rename_all(moves)
    return lengths, records


def _place_tables(
    root: str, tables: Iterable[TableFacts], checksums: dict[str, str]
) -> dict[str, VocabularyEntry]:
    vocabularies: dict[str, VocabularyEntry] = {}
    made: list[PlacedFile] = []
    for table in tables:
        vocabularies |= table.vocabularies
        made += table.files
    _place(made, root, checksums)
    return vocabularies


def _place(made: Sequence[PlacedFile], root: str, checksums: dict[str, str]) -> None:
    files.rename_all([(file.path, files.join(root, file.place)) for file in made])
    checksums |= {file.place: file.sha256 for file in made}


def _vectors(work: Work, summary: Summary) -> dict[str, Any]:
    """The manifest's entry of item vectors."""
    made, model = summary.vectors, work.title_model
    if made is None:
        return {}
    entry: dict[str, Any] = {"width": made.width, "dims": made.dims, "items": made.items}
    if model is not None:
        entry["model"] = {"name": model.name, "sha256": model.sha256}
    return entry


def account(summary: Summary, carried: Carried) -> dict[str, Account]:
    """Where every line and every request ended: by domain, "<domain>_items" and "requests".

    Raises:
      RuntimeError: something is in no place or in two.
    """
    accounts: dict[str, Account] = {}
    for parsed in _with_all_domains(summary.lines):
        later = _summed(group.filtered.get(parsed.what, {}) for group in summary.groups)
        brought = sum(part.rows for _, part in carried.events if part.domain == parsed.what)
        merged = sum(group.merged[parsed.what] for group in summary.groups)
        accounts[parsed.what] = parsed.counts.account(later, brought, merged)
    for what, domain in manifest_entries.REQUESTS.items():
        asked = [group for group in summary.groups if domain in group.requests]
        if not asked:
            continue
        filtered = _summed(group.requests_filtered[domain] for group in asked)
        accounts[what] = Account(
            total=sum(group.requests[domain] for group in asked),
            used=sum(f.records for f in summary.written(schema.STAGE_OF_REQUESTS[domain])),
            filtered=dict(sorted(filtered.items())),
            rejected={},
        )
    for what, ended in accounts.items():
        ended.check(what)
    return accounts


def _summed(counts: Iterable[dict[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter())


_REMEDIES = {
    request_rules.too_short(schema.SOURCE): "lower min_source_history={min_source_history}",
    request_rules.too_short(schema.TARGET): "lower min_target_history={min_target_history}",
    request_rules.TOO_MANY_CANDIDATES: "raise max_candidates={max_candidates}",
    request_rules.CROSSES: "lower request_seconds={request_seconds}",
    request_rules.NO_NEGATIVES: "their users have clicked every item: give logs of more items",
}
"""By rule that filters requests, what keeps more of them; with the options of the job."""


def check_trainable(records: dict[str, dict[str, int]], requests: Account, job: Job) -> None:
    """
    Raises:
      InputError: no request is left to train on.
    """
    if not records[schema.STAGE2][schema.TRAIN]:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in requests.filtered.items())
        others = ", ".join(f"{n:,} {s}" for s, n in records[schema.STAGE2].items() if n)
        worst = max(requests.filtered, key=lambda rule: requests.filtered[rule], default="")
        other = "check the cutoffs, and that the logs are of the same users and time"
        raise InputError(
            f"of {requests.total:,} requests none is left to train on "
            f"({'; '.join(filter(None, (others, rules and f'filtered: {rules}')))})",
            _REMEDIES.get(worst, other).format_map(dataclasses.asdict(job)),
        )


def _with_all_domains(lines: tuple[LineFacts, ...]) -> tuple[LineFacts, ...]:
    """A domain may have no log of its own where the job extends a data set."""
    missing = set(schema.DOMAINS) - {entry.what for entry in lines}
    return (*lines, *map(LineFacts, sorted(missing)))


def _place_rejects(root: str, lines: Iterable[LineFacts]) -> None:
    """All rejects in order of the inputs, in a few files."""
    folder = files.join(root, "rejects")
    files.make_folder(folder)
    paths = (
        path
        for parsed in sorted(lines, key=lambda entry: entry.what)
        for _, _, path in sorted(parsed.counts.reject_files)
    )
    part, size = 0, _REJECTS_BYTES + 1
    with contextlib.ExitStack() as stack:
        for text in map(str.encode, files.ahead(files.read_text, paths)):
            if size > _REJECTS_BYTES:
                stack.close()
                name = files.join(folder, f"part-{part:05d}.jsonl")
                stream = stack.enter_context(files.writing(name))
                part, size = part + 1, 0
            stream.write(text)
            size += len(text)


def versions() -> dict[str, str]:
    """Of Python and the packages that write a data set."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "unknown"
    return installed
