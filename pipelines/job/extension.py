"""What a data set keeps so that the next day's logs can extend it, and how they do."""

import json
from typing import Any

from pipelines import facts, manifest_entries
from pipelines.job.summary import Summary
from pipelines.job.title_model import TitleModel
from pipelines.job.workspace import Carried
from pipelines.logs import files, line_counts
from pipelines.manifest_entries import DATA_SET, InputFile
from pipelines.options import Job
from pipelines.records import shards
from sitn_tf import schema
from sitn_tf.errors import InputError

FOLDER, _PARTS = manifest_entries.KEPT, manifest_entries.KEPT_PARTS
_MUST_AGREE = ("shards", "split", "max_user_events", "seed")


def keep(root: str, summary: Summary) -> None:
    """Moves a job's sorted events, raw items, titles' vectors and click times into the data set."""
    folder = files.join(root, FOLDER)
    files.make_folder(folder)
    parts, moves, sums = [], [], {}
    for shard in (shard for group in summary.groups for shard in group.kept):
        for domain, path in sorted(shard.events.items()):
            name = f"{domain}-{shard.shard:05d}.arrow"
            moves.append((path, files.join(folder, name)))
            parts.append([shard.shard, domain, name, shard.rows[domain]])
            sums[name] = shard.sha256[domain]
    others = [table.raw_items for table in summary.tables]
    others.append(summary.vectors.titles if summary.vectors else None)
    for made in filter(None, others):
        moves.append((made.path, files.join(root, made.place)))
        sums[made.place.removeprefix(f"{FOLDER}/")] = made.sha256
    files.rename_all(moves)
    times = facts.to_json(summary.cutoffs.times)
    kept: dict[str, Any] = {"parts": parts, "times": times, "sha256": sums}
    kept["whole"] = manifest_entries.kept_checksum(kept)
    files.write_json(files.join(folder, _PARTS), kept)


def load(job: Job, model: TitleModel | None = None) -> Carried:
    """What the data set that a job extends brings.

    Raises:
      InputError: it keeps no events, these are damaged (each shard's is looked at where it is
        read), or it was made in a way that can't be carried on.
    """
    if not job.extends:
        return Carried()
    manifest = schema.read_manifest(job.extends)
    folder = files.join(job.extends, FOLDER)
    if not files.exists(files.join(folder, _PARTS)):
        raise InputError(
            f"extends={job.extends} keeps no events: build it with keep_events=True to extend it"
        )
    _check_agreement(job, manifest)
    _check_vectors(job, manifest.vectors, model)
    kept = _kept(files.join(folder, _PARTS))
    sums = kept.get("sha256", {})
    of_shards = {name for _, _, name, _ in kept["parts"]}
    for name in sorted(sums.keys() - of_shards):
        files.check_sha256(files.join(folder, name), sums[name])
    return Carried(
        events=tuple(
            (
                shard,
                shards.Part(domain, files.join(folder, name), 0, rows, (-1, 0), sums.get(name, "")),
            )
            for shard, domain, name, rows in kept["parts"]
        ),
        items=tuple(
            (d, files.join(job.extends, manifest_entries.kept_items(d))) for d in schema.DOMAINS
        ),
        known=tuple(
            (name, files.join(job.extends, schema.vocabulary_path(*name.split("."))))
            for name in sorted(manifest.vocabularies)
        ),
        times=facts.from_json(line_counts.TimeHistogram, kept["times"]),
        vectors=files.join(job.extends, schema.ITEM_VECTORS_PATH) if manifest.vectors else "",
        titles=(
            files.join(job.extends, manifest_entries.KEPT_TITLES)
            if "model" in manifest.vectors
            else ""
        ),
    )


def _kept(path: str) -> dict[str, Any]:
    """What KEPT_PARTS says, whole; data sets of before its checksums are taken as they are."""
    try:
        kept: dict[str, Any] = json.loads(files.read_text(path))
        whole = kept.get("whole")
        fine = whole is None or whole == manifest_entries.kept_checksum(kept)
    except (ValueError, AttributeError):
        fine = False
    if not fine:
        raise InputError(f"{path} is damaged: it has not its checksum", files.AS_WRITTEN)
    return kept


def _check_agreement(job: Job, manifest: schema.Manifest) -> None:
    if job.hashed_users != manifest.options.get("hashed_users", False):
        raise InputError(
            f"hash_user_ids is given for only one of this job and extends={job.extends}",
            "give the same key to both, or build all anew",
        )
    theirs = manifest.options.get("hashed_with")
    if theirs and theirs != job.hashed_with:
        raise InputError(
            f"hash_user_ids is another key than that of extends={job.extends}: each user would be "
            "two",
            "give that key, or build all anew",
        )
    for name in (*_MUST_AGREE, *(("vector_dim",) if manifest.vectors else ())):
        if (ours := getattr(job, name)) != manifest.options[name]:
            raise InputError(
                f"{name}={ours} differs from {manifest.options[name]}, which "
                f"extends={job.extends} was made with: give that, or build all anew"
            )
    for domain in schema.DOMAINS:
        their_format = manifest.options["formats"][domain]
        for field in ("label", "request", "score"):
            if (getattr(job.formats[domain], field) is None) != (their_format[field] is None):
                raise InputError(
                    f"formats.{domain}.{field} is given for only one of this job and "
                    f"extends={job.extends}: the {domain} events would not fit together"
                )


def _check_vectors(job: Job, theirs: dict[str, Any], model: TitleModel | None) -> None:
    """New items' vectors are to be made as those of the data set extended were."""
    if not theirs:
        return
    first = theirs.get("model", {})
    if first.get("sha256") != (model and model.sha256):
        made = f"by title_model={first['name']}" if first else "of item_fields.vector"
        raise InputError(
            f"title_model={job.title_model} is not what extends={job.extends} was made with: its "
            f"items have vectors {made}",
            f"give that ({first['sha256'][:12]}…), or build all anew" if first else "leave it out",
        )
    if not first and any(job.items.values()) and not job.item_fields.vector:
        raise InputError(
            f"item_fields.vector is not given, but extends={job.extends} has vectors of its items: "
            "new ones would have none"
        )


def ancestry(job: Job) -> list[InputFile]:
    """Entries of the manifest's inputs: the data set extended, and its own inputs."""
    if not job.extends:
        return []
    manifest = schema.read_manifest(job.extends)
    kept = sum(size for _, size in files.match(files.join(job.extends, FOLDER, "*")))
    this = InputFile(files.absolute(job.extends), "", DATA_SET, kept, manifest.dataset_hash)
    return [this, *(facts.from_json(InputFile, entry) for entry in manifest.inputs)]
