"""Small logs for tests, and data sets read back as plain Python."""

import gzip
import json
import pathlib
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from sitn_tf import schema

WIDTH = 6
"""Of vectors in item files."""


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def clicks(
    seed: int, users: int, items: int, count: int, prefix: str, days: int = 40
) -> list[dict[str, Any]]:
    """Clicks with day-resolution times (many ties), popular items and a few duplicates."""
    rng = random.Random(seed)
    rows = [
        {
            "user_id": f"u{rng.randrange(users)}",
            "item_id": f"{prefix}{int(items * rng.random() ** 2)}",
            "timestamp": 1_600_000_000 + 86_400 * rng.randrange(days),
        }
        for _ in range(count)
    ]
    return rows + rows[:3]


def impressions(
    seed: int, users: int, items: int, requests: int, prefix: str = "t"
) -> list[dict[str, Any]]:
    """Requests of four impressions, none to four of them clicked, with logged scores."""
    rng = random.Random(seed)
    rows = []
    for request in range(requests):
        moment = 1_600_000_000 + rng.randrange(40 * 86_400)
        user = f"u{rng.randrange(users)}"
        rows += [
            {
                "user_id": user,
                "item_id": f"{prefix}{item}",
                "timestamp": moment + place,
                "clicked": int(rng.random() < 0.3),
                "request_id": f"r{request}",
                "score": rng.random(),
            }
            for place, item in enumerate(rng.sample(range(items), 4))
        ]
    return rows


def items_with_vectors(
    path: pathlib.Path,
    prefix: str,
    *,
    items: int = 50,
    vectors: bool = True,
    seed: int = 0,
    more: Iterable[dict[str, Any]] = (),
) -> pathlib.Path:
    """An item file of a domain's items, six in seven of them with WIDTH numbers in `emb`."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(items):
        row = {"item_id": f"{prefix}{item}", "title": "a thing"}
        emb = rng.normal(size=WIDTH).tolist()
        rows.append(row | {"emb": emb} if vectors and item % 7 else row)
    return write_lines(path, [*rows, *more])


def two_logs(folder: pathlib.Path, count: int = 400) -> list[str]:
    """Writes a source and a target log; the flags that name them."""
    write_lines(folder / "source.jsonl", clicks(1, 30, 50, count, "s"))
    write_lines(folder / "target.jsonl.gz", clicks(2, 30, 40, count, "t"))
    return flags_of(folder)


def flags_of(folder: pathlib.Path) -> list[str]:
    """The flags that name the two logs of a folder."""
    return [f"--source_log={folder}/source.jsonl", f"--target_log={folder}/target.jsonl.gz"]


def read_records(data_dir: pathlib.Path, stage: str, split: str) -> list[dict[str, Any]]:
    """Records parsed by TensorFlow, histories and candidates as raw items ("?" if unknown)."""
    names = {
        domain: ["", "?", *pq.read_table(data_dir / schema.item_table_path(domain))[
            schema.ITEM].to_pylist()[2:]]
        for domain in schema.DOMAINS
    }  # fmt: skip
    decoded = {
        schema.SOURCE_HISTORY.name: names[schema.SOURCE],
        schema.TARGET_HISTORY.name: names[schema.TARGET],
        schema.CANDIDATES.name: names[schema.TARGET],
        schema.SOURCE_CANDIDATES.name: names[schema.SOURCE],
    }
    features = schema.read_manifest(data_dir).features_of(stage)
    records = []
    for path in sorted(data_dir.glob(schema.shard_glob(stage, split))):
        for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            records.append(parse(raw, features, decoded))
    return records


def parse(
    raw: bytes, features: Iterable[schema.Feature], decoded: dict[str, list[str]]
) -> dict[str, Any]:
    found = tf.train.Example.FromString(raw).features.feature
    record: dict[str, Any] = {}
    for feature in features:
        kind = {"bytes": "bytes_list", "int64": "int64_list", "float32": "float_list"}
        values = list(getattr(found[feature.name], kind[feature.dtype]).value)
        if feature.name in decoded:
            values = [decoded[feature.name][v] for v in values]
        record[feature.name] = values if feature.ragged else values[0]
    record[schema.USER_ID.name] = record[schema.USER_ID.name].decode()
    return record
