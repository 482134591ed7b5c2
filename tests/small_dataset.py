"""A small data set directory written by hand, for tests that need no Beam."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from sitn_tf import schema

SOURCE_ITEMS = 20
TARGET_ITEMS = 15
WORDS = 6
VECTOR_DIM = 3
MAX_HISTORY = 8


def example(features: dict[str, object]) -> bytes:
    """One `tf.train.Example` from Python values, by feature name."""
    made = {}
    for name, value in features.items():
        values = value if isinstance(value, (list, tuple, np.ndarray)) else [value]
        if name == schema.USER_ID.name:
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif name == schema.LOGGED_SCORES.name:
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def user_record(rng: np.random.Generator, user: int) -> dict[str, object]:
    """A stage-1 record whose two histories share an interest: parity of the ids."""
    interest = user % 2
    return {
        "user_id": f"u{user}".encode(),
        "cutoff_time": 1000,
        "history_time": 900,
        "source_history": _clicks(rng, interest, SOURCE_ITEMS),
        "target_history": _clicks(rng, interest, TARGET_ITEMS),
    }


def request_record(rng: np.random.Generator, user: int, candidates: int = 5) -> dict[str, object]:
    """A stage-2 record in which candidates of the user's interest are clicked."""
    shown = rng.choice(np.arange(2, TARGET_ITEMS), size=candidates, replace=False)
    labels = (shown % 2 == user % 2).astype(int)
    record = user_record(rng, user)
    del record["cutoff_time"]
    return record | {
        "request_time": 1000,
        "candidates": shown,
        "labels": labels,
        "logged_scores": np.where(labels, 0.9, 0.1),
    }


def source_request_record(rng: np.random.Generator, user: int) -> dict[str, object]:
    """The same of the source domain; every third user has no target history."""
    record = request_record(rng, user)
    del record["candidates"]
    shown = rng.choice(np.arange(2, SOURCE_ITEMS), size=4, replace=False)
    labels = (shown % 2 == user % 2).astype(int)
    if user % 3 == 0:
        record["target_history"] = []
    return record | {
        "source_candidates": shown,
        "labels": labels,
        "logged_scores": np.where(labels, 0.9, 0.1),
    }


def _clicks(rng: np.random.Generator, interest: int, items: int) -> np.ndarray:
    ids = np.arange(2, items)
    return rng.choice(ids[ids % 2 == interest], size=rng.integers(1, MAX_HISTORY + 1))


def _times(record: dict[str, object]) -> dict[str, object]:
    """Times of a record's clicks, a hundred seconds apart, the newest at its history_time."""
    return {
        schema.TIMES_OF_DOMAIN[domain].name: 900 - 100 * np.arange(len(record[history.name]))[::-1]
        for domain, history in schema.HISTORY_OF_DOMAIN.items()
    }


def write_small_dataset(
    folder: pathlib.Path,
    users: int = 40,
    requests: int = 120,
    dataset_hash: str = "small",
    vectors: tuple[str, ...] = (),
    click_times: bool = False,
) -> pathlib.Path:
    """Writes a whole data set directory and returns it; items of some domains have `vectors`."""
    rng = np.random.default_rng(0)
    records = {
        ("stage1", "train"): [user_record(rng, u) for u in range(users)],
        ("stage1", "validation"): [user_record(rng, u) for u in range(users // 2)],
        ("stage2", "train"): [request_record(rng, u) for u in range(requests)],
        ("stage2", "validation"): [request_record(rng, u) for u in range(requests // 4)],
        ("stage2", "test"): [request_record(rng, u) for u in range(requests // 4)],
        ("source_requests", "train"): [source_request_record(rng, u) for u in range(requests)],
        ("source_requests", "validation"): [source_request_record(rng, u) for u in range(9)],
    }
    for (stage, split), rows in records.items():
        path = folder / schema.shard_glob(stage, split).replace("*", "00000-of-00001")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                writer.write(example(row | (_times(row) if click_times else {})))
    sizes = {schema.SOURCE: SOURCE_ITEMS, schema.TARGET: TARGET_ITEMS}
    vocabularies = {}
    for domain, items in sizes.items():
        _write_items(folder, domain, items, rng)
        vocabularies[f"{domain}.item"] = {"size": items, "sha256": ""}
        vocabularies[f"{domain}.title_words"] = {"size": WORDS, "sha256": ""}
        vocabularies[f"{domain}.brand"] = {"size": 4, "sha256": ""}
        if domain in vectors:
            _add_vectors(folder / schema.item_table_path(domain), items)
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(click_times),
        dataset_hash=dataset_hash,
        inputs=[],
        options={},
        split={"kind": "time"},
        max_history=MAX_HISTORY,
        negatives={"kind": "impressions", "sampling_rate": 1.0},
        lines={},
        vocabularies=vocabularies,
        records={
            "stage2": {"train": requests},
            "source_requests": {"train": requests},
        },
        shards={},
        versions={},
        click_times=click_times,
    )
    (folder / schema.MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def _add_vectors(path: pathlib.Path, items: int) -> None:
    """Unit vectors that tell the interests apart; every fifth item has none."""
    rng = np.random.default_rng(items)
    vectors = rng.normal(size=(items, VECTOR_DIM)) + 2 * (np.arange(items)[:, None] % 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[0, 1, *range(5, items, 5)]] = 0
    flat = pa.array(vectors.astype(np.float16).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, VECTOR_DIM)
    pq.write_table(pq.read_table(path).append_column(schema.VECTOR, column), path)


def _write_items(folder: pathlib.Path, domain: str, items: int, rng: np.random.Generator) -> None:
    names = ["", "", *(f"{domain[0]}{i}" for i in range(2, items))]
    words = [[] if i < 2 else rng.integers(2, WORDS, size=i % 4).tolist() for i in range(items)]
    known = np.array([0, 1, *(2 + i % 2 for i in range(2, items))], np.int32)
    columns = {
        schema.ITEM: pa.array(names),
        schema.TITLE: pa.array([f"title of {name}" if name else "" for name in names]),
        schema.COUNT: pa.array(np.arange(items)[::-1].astype(np.int64)),
        schema.IMPRESSIONS: pa.array(np.arange(items)[::-1].astype(np.int64)),
        schema.TITLE_WORDS: pa.array(words, pa.list_(pa.int32())),
        **{f: pa.array(known) for f in schema.CATEGORICAL_ITEM_FEATURES},
    }
    path = folder / schema.item_table_path(domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    vocabularies = {
        schema.ITEM: names[2:],
        schema.TITLE_WORDS: [f"word{i}" for i in range(2, WORDS)],
        "brand": ["even", "odd"],
    }
    for feature, tokens in vocabularies.items():
        path = folder / schema.vocabulary_path(domain, feature)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{token}\n" for token in tokens))
