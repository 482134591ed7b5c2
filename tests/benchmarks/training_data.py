"""The data of tests/benchmarks/training.py: synthetic records, real logs, rows for competitors."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from sitn_tf import schema

CANDIDATES = 10
REAL = "amazon_kitchen_food"
ITEMS, HISTORY, INTERESTS = 20_000, 100, 20
SHARDS = 4


def write_synthetic(folder: pathlib.Path, requests: int, compression: str = "") -> None:
    """A data set of full histories in which the candidate of the user's interest is clicked."""
    import tensorflow as tf

    from tests.small_dataset import example

    rng = np.random.default_rng(0)
    for domain in schema.DOMAINS:
        _write_item_table(folder, domain)
        stage = schema.STAGE_OF_REQUESTS[domain]
        pattern = schema.shard_glob(stage, schema.TRAIN)
        for shard in range(SHARDS):
            path = folder / pattern.replace("*", f"{shard:05d}-of-{SHARDS:05d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tf.io.TFRecordWriter(str(path), compression) as writer:
                for record in _requests(rng, requests // SHARDS, domain):
                    writer.write(example(record))
    sizes = {f"{d}.{schema.ITEM}": {"size": ITEMS} for d in schema.DOMAINS}
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(),
        dataset_hash="synthetic",
        inputs=[],
        options={},
        split={},
        max_history=HISTORY,
        negatives={},
        lines={},
        vocabularies=sizes,
        records={
            stage: {schema.TRAIN: requests // SHARDS * SHARDS}
            for stage in schema.STAGE_OF_REQUESTS.values()
        },
        shards={},
        versions={},
    )
    (folder / schema.MANIFEST_FILE).write_text(manifest.to_json())


def _requests(rng: np.random.Generator, count: int, domain: str) -> Iterator[dict[str, object]]:
    """An item's interest is its id modulo INTERESTS; 7 of 10 clicks are of the user's own."""
    for number in range(count):
        interest = rng.integers(INTERESTS)

        def draw(size: int, own: np.ndarray, interest: int = interest) -> np.ndarray:
            any_item = rng.integers(schema.FIRST_ID, ITEMS - INTERESTS, size)
            return np.where(own, any_item // INTERESTS * INTERESTS + interest, any_item).clip(2)

        history = (HISTORY, rng.random(HISTORY) < 0.7)
        clicked = np.arange(CANDIDATES) == rng.integers(CANDIDATES)
        yield {
            "user_id": f"u{number}".encode(),
            "request_time": 1000,
            "history_time": 900,
            "source_history": draw(*history),
            "target_history": draw(*history),
            schema.CANDIDATES_OF_DOMAIN[domain].name: draw(CANDIDATES, clicked),
            "labels": clicked.astype(int),
            "logged_scores": [],
        }


def _write_item_table(folder: pathlib.Path, domain: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([f"{domain}{i}" for i in range(ITEMS)])
    clicks = pa.array(np.zeros(ITEMS, np.int64))
    path = folder / schema.item_table_path(domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {schema.ITEM: names, schema.TITLE: names, schema.COUNT: clicks}
    pq.write_table(pa.table(columns), path)


def write_real(folder: pathlib.Path) -> None:
    """The data set of the real logs, by the project's own job."""
    logs = pathlib.Path(os.environ["SITN_REAL_DATA"]) / REAL
    command = [sys.executable, "-m", "pipelines.build_dataset", f"--output={folder}"]
    command += [f"--source_log={logs}/clicks-kitchen.jsonl.gz"]
    command += [f"--target_log={logs}/clicks-food.jsonl.gz", "--source_requests"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_rows(
    data_dir: pathlib.Path, path: pathlib.Path, requests: int, split: str = schema.TRAIN
) -> None:
    """The first requests of a split as rows of one candidate, for the competitors."""
    from sitn_tf import data

    batches = data.read_split(data_dir, schema.STAGE2, split, requests)
    batch = {name: tensor.numpy() for name, tensor in next(iter(batches)).items()}
    history, candidates = batch["target_history"], batch["candidates"]
    real = candidates != schema.PAD_ID
    request = np.nonzero(real)[0]
    np.savez(
        path,
        history=history[request],
        length=(history != schema.PAD_ID).sum(axis=1)[request],
        request=request,
        item=candidates[real],
        label=batch["labels"][real],
    )
