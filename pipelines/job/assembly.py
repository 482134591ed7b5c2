"""A job's files to a data set directory that becomes visible only when whole."""

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections import Counter
from typing import Any

import numpy as np

from pipelines.job import build_records, extension
from pipelines.job.options import ItemFields, Job
from pipelines.job.workspace import Carried, Work
from pipelines.logs import event_parser, files, line_blocks, line_counts
from pipelines.statistics import feature_statistics, page
from sitn_tf import schema
from sitn_tf.errors import InputError

CHECKSUMS_FILE = "checksums.json"
PAGE_FILE = "statistics.html"
_REJECTS_BYTES = 64 << 20
_PACKAGES = ("apache-beam", "numpy", "pyarrow", "sitn_tf", "tensorflow-datasets")


def assemble(
    work: Work, root: str, inputs: list[tuple[str, str, line_blocks.Unit]]
) -> schema.Manifest:
    """Moves a job's files to their places under `root` and describes them.

    Args:
      work: the job that ran; its folder lies in `root`.
      root: the data set directory to be.
      inputs: (domain, "log" or "items", unit) of everything that was read.
    """
    job, summary = work.job, build_records.read_summary(work)
    checksums: dict[str, str] = {}
    shards, records = _place_shards(root, summary["shards"], checksums)
    vocabularies = _place_tables(root, summary["tables"], checksums)
    lines = account(summary, work.carried)
    check_trainable(records, lines)
    if job.keep_events:
        extension.keep(root, summary)
    _place_rejects(root, summary["lines"])
    for stage in schema.STAGE_FEATURES:
        write_tfds_metadata(root, stage, {
            split: [shards[p] for p in sorted(shards) if p.startswith(_prefix(stage, split))]
            for split in records[stage]
        }, _stage_bytes(summary["shards"], stage))  # fmt: skip
    files.write_json(files.join(root, CHECKSUMS_FILE), checksums)
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(),
        dataset_hash=dataset_hash(checksums),
        inputs=describe_inputs(inputs) + extension.ancestry(job),
        options=job.as_json(),
        split={"kind": job.split, **summary["cutoffs"][0]["cutoffs"]},
        max_history=job.max_history,
        negatives=describe_negatives(job, vocabularies),
        lines=lines,
        vocabularies=vocabularies,
        records=records,
        shards=shards,
        versions=versions(),
    )
    write_statistics(root, summary, manifest)
    return manifest


def write_statistics(root: str, summary: dict[str, list[Any]], manifest: schema.Manifest) -> None:
    """Statistics for TFDV, as proto and as JSON, and the page for people."""
    from google.protobuf import json_format

    in_order = sorted(summary["shards"], key=lambda s: s["shard"])
    merged = feature_statistics.Statistics.of(
        # one in memory at a time: together they need more than all else the job does
        (json.loads(files.read_text(shard["statistics"])) for shard in in_order),
        {table["domain"]: table["popularity"] for table in summary["tables"]},
    )
    proto = feature_statistics.as_proto(merged)
    with files.writing(files.join(root, feature_statistics.STATISTICS_PROTO)) as stream:
        stream.write(proto.SerializeToString(deterministic=True))
    text = json_format.MessageToJson(proto, preserving_proto_field_name=True)
    files.write_text(files.join(root, feature_statistics.STATISTICS_JSON), text)
    files.write_text(files.join(root, PAGE_FILE), page.render(merged, manifest))


def dataset_hash(checksums: dict[str, str]) -> str:
    """Identity of a data set's content: of the checksums of its files."""
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()[:32]


def job_from_json(options: dict[str, Any]) -> Job:
    """The job that a manifest's options describe."""
    known = {
        **options,
        "formats": {d: event_parser.LogFormat(**f) for d, f in options["formats"].items()},
        "item_fields": ItemFields(**options["item_fields"]),
    }
    return Job(**known)


def _prefix(stage: str, split: str) -> str:
    return schema.shard_glob(stage, split).removesuffix("*")


def _place_shards(
    root: str, summaries: list[dict[str, Any]], checksums: dict[str, str]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Numbers the TFRecord files of each split in order of their user shards."""
    by_split: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for summary in sorted(summaries, key=lambda s: s["shard"]):
        for entry in summary["written"]:
            if entry["records"]:
                by_split.setdefault((entry["stage"], entry["split"]), []).append(entry)
    lengths: dict[str, int] = {}
    records = {
        schema.STAGE1: dict.fromkeys(schema.STAGE1_SPLITS, 0),
        schema.STAGE2: dict.fromkeys(schema.STAGE2_SPLITS, 0),
    }
    for (stage, split), entries in sorted(by_split.items()):
        for index, entry in enumerate(entries):
            place = f"{_prefix(stage, split)}{index:05d}-of-{len(entries):05d}"
            files.rename(entry["path"], files.join(root, place))
            lengths[place] = entry["records"]
            checksums[place] = entry["sha256"]
            records[stage][split] += entry["records"]
    return lengths, records


def _stage_bytes(summaries: list[dict[str, Any]], stage: str) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for summary in summaries:
        for entry in summary["written"]:
            if entry["stage"] == stage:
                sizes[entry["split"]] += entry["bytes"]
    return dict(sizes)


def _place_tables(
    root: str, tables: list[dict[str, Any]], checksums: dict[str, str]
) -> dict[str, dict[str, Any]]:
    vocabularies: dict[str, dict[str, Any]] = {}
    for table in tables:
        vocabularies |= table["vocabularies"]
        for old, new in table["moves"].items():
            files.rename(old, files.join(root, new))
            checksums[new] = table["checksums"][old]
    return dict(sorted(vocabularies.items()))


def account(summary: dict[str, list[Any]], carried: Carried) -> dict[str, Any]:
    """Where every line and every request ended.

    Raises:
      RuntimeError: something is in no place or in two.
    """
    lines: dict[str, Any] = {}
    for found in _with_all_domains(summary["lines"]):
        domain = found["what"]
        later: Counter[str] = Counter()
        for shard in summary["shards"]:
            later.update(shard["events_filtered"].get(domain, {}))
        counts = line_counts.LineCounts(
            found["total"], found["events"], Counter(found["filtered"]), Counter(found["rejected"])
        )
        brought = sum(part.rows for _, part in carried.events if part.domain == domain)
        lines[domain] = counts.as_json(later, brought)
    requests_filtered: Counter[str] = Counter()
    for shard in summary["shards"]:
        requests_filtered.update(shard["requests_filtered"])
    used = sum(
        entry["records"]
        for shard in summary["shards"]
        for entry in shard["written"]
        if entry["stage"] == schema.STAGE2
    )
    lines["requests"] = {
        "total": sum(shard["requests"] for shard in summary["shards"]),
        "used": used,
        "filtered": dict(sorted(requests_filtered.items())),
        "rejected": {},
    }
    for what, counted in lines.items():
        line_counts.check_sums(counted, what)
    return lines


def check_trainable(records: dict[str, dict[str, int]], lines: dict[str, Any]) -> None:
    """
    Raises:
      InputError: no request is left to train on.
    """
    if not records[schema.STAGE2][schema.TRAIN]:
        asked = lines["requests"]
        rules = ", ".join(f"{rule} {count:,}" for rule, count in asked["filtered"].items())
        others = ", ".join(f"{n:,} {s}" for s, n in records[schema.STAGE2].items() if n)
        raise InputError(
            f"of {asked['total']:,} requests none is left to train on "
            f"({'; '.join(filter(None, (others, rules and f'filtered: {rules}')))}): "
            "check the cutoffs, --min_source_history and --min_target_history"
        )


def _with_all_domains(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A domain may have no log of its own where the job extends a data set."""
    missing = set(schema.DOMAINS) - {entry["what"] for entry in found}
    nothing = {"total": 0, "events": 0, "filtered": {}, "rejected": {}, "reject_files": []}
    return [*found, *({"what": domain, **nothing} for domain in sorted(missing))]


def _place_rejects(root: str, lines: list[dict[str, Any]]) -> None:
    """All rejects in order of the inputs, in a few files."""
    folder = files.join(root, "rejects")
    files.make_folder(folder)
    part, size, out = 0, 0, None
    for found in sorted(lines, key=lambda entry: str(entry["what"])):
        for path in found["reject_files"]:
            text = files.read_text(path)
            if out is None or size > _REJECTS_BYTES:
                if out is not None:
                    out.__exit__(None, None, None)
                out = files.writing(files.join(folder, f"part-{part:05d}.jsonl"))
                stream = out.__enter__()
                part, size = part + 1, 0
            stream.write(text.encode())
            size += len(text)
    if out is not None:
        out.__exit__(None, None, None)


def write_tfds_metadata(
    root: str, stage: str, shard_lengths: dict[str, list[int]], sizes: dict[str, int]
) -> None:
    """Writes what `tfds.builder_from_directory` needs to open a stage."""
    folder = files.join(root, stage)
    files.make_folder(folder)
    # tfds knows fewer filesystems than Beam: it writes here, and the files go on from here
    with tempfile.TemporaryDirectory() as local:
        _tfds_info(local, stage, shard_lengths, sizes).write_to_directory(local)
        for name in sorted(os.listdir(local)):
            with open(os.path.join(local, name)) as file:
                files.write_text(files.join(folder, name), file.read())


def _tfds_info(
    folder: str, stage: str, shard_lengths: dict[str, list[int]], sizes: dict[str, int]
) -> Any:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=schema.records_name(stage), filetype_suffix="tfrecord"
    )
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=schema.records_name(stage),
            version=tfds.core.Version("1.0.0"),
            data_dir=folder,
            module_name="",
        ),
        features=tfds_features(stage),
        description=f"Records of {stage}: see sitn_tf/schema.py.",
    )
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=sizes.get(split, 0),
                    filename_template=template,
                )
                for split, lengths in shard_lengths.items()
                if lengths
            ]
        )
    )
    return info


def tfds_features(stage: str) -> Any:
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {}
    for feature in schema.STAGE_FEATURES[stage]:
        if feature.dtype == "bytes":
            features[feature.name] = tfds.features.Text(doc=feature.meaning)
        else:
            dtype = np.dtype(feature.dtype)
            one = tfds.features.Scalar(dtype=dtype, doc=feature.meaning)
            features[feature.name] = tfds.features.Sequence(one) if feature.ragged else one
    return tfds.features.FeaturesDict(features)


def describe_inputs(inputs: list[tuple[str, str, line_blocks.Unit]]) -> list[dict[str, Any]]:
    found = {
        (domain, kind, unit.path): {
            "path": unit.path,
            "domain": domain,
            "kind": kind,
            "bytes": unit.file_bytes,
        }
        for domain, kind, unit in inputs
    }
    return [found[key] for key in sorted(found)]


def describe_negatives(job: Job, vocabularies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if job.impressions:
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


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
