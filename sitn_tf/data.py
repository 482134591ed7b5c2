"""TFRecord shards of a data set directory → batches of dense tensors.

One parser serves training and serving. Batches are cut to their longest history, so
padding costs no more than the spread of lengths within a batch.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from sitn_tf import label_share, schema, shards
from sitn_tf.errors import InputError

Batch = dict[str, tf.Tensor]

TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "bytes": tf.string}

_MISSING = {"int64": 0, "float32": 0.0, "bytes": b""}

PARALLEL_CALLS = 2
PREFETCHED_BATCHES = 8
LENGTH_WINDOW = 16
"""Batches' worth of records that are sorted by length together."""

SHUFFLE_RECORDS = 100_000
"""Records held for shuffling; the pipeline has already permuted each shard."""


def user_hash(batch: Batch) -> tf.Tensor:
    """`[B]` int64, the same for records of the same user."""
    return tf.strings.to_hash_bucket_fast(batch[schema.USER_ID.name], 2**62)


def has_both_histories(batch: Batch) -> tf.Tensor:
    """`[B]` bool: neither history is empty."""
    histories = [batch[feature.name] for feature in schema.HISTORY_OF_DOMAIN.values()]
    return tf.logical_and(*[tf.reduce_any(ids != schema.PAD_ID, axis=1) for ids in histories])


def parse(
    serialized: tf.Tensor, features: Iterable[schema.Feature], may_lack: bool = False
) -> Batch:
    """Parses serialized `tf.train.Example`s.

    Args:
      serialized: `[B]` string.
      may_lack: whether a missing single value is 0 or empty, and no error.

    Returns:
      By feature name: `[B]` for single values, `[B, longest]` padded with 0 for lists.

    Raises:
      InvalidArgumentError: a history has not as many times as clicks, where times are parsed.
    """
    return _dense(_parse_ragged(serialized, features, may_lack))


def _parse_ragged(
    serialized: tf.Tensor, features: Iterable[schema.Feature], may_lack: bool = False
) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    described = {
        f.name: tf.io.RaggedFeature(TF_DTYPES[f.dtype], row_splits_dtype=tf.int64)
        if f.ragged
        else tf.io.FixedLenFeature([], TF_DTYPES[f.dtype], _MISSING[f.dtype] if may_lack else None)
        for f in features
    }
    parsed = tf.io.parse_example(serialized, described)
    for history, times in zip(
        schema.HISTORY_OF_DOMAIN.values(), schema.TIMES_OF_DOMAIN.values(), strict=True
    ):
        if history.name in parsed and times.name in parsed:
            tf.debugging.assert_equal(
                parsed[history.name].row_splits,
                parsed[times.name].row_splits,
                f"{times.name} has not a time for each item of {history.name}",
            )
    return parsed


def _dense(parsed: Mapping[str, tf.Tensor | tf.RaggedTensor]) -> Batch:
    return {
        name: value.to_tensor() if isinstance(value, tf.RaggedTensor) else value
        for name, value in parsed.items()
    }


_SOURCE_PREFIX = f"{schema.SOURCE_REQUESTS}/"


def with_source_requests(batch: Batch, asked: Batch) -> Batch:
    """A batch of stage 2 and one of source requests, each of rows of its own, as one."""
    return batch | {_SOURCE_PREFIX + name: value for name, value in asked.items()}


def source_requests(batch: Batch) -> Batch:
    """What `with_source_requests` put beside a batch: schema.SOURCE_REQUEST_FEATURES."""
    return {
        name.removeprefix(_SOURCE_PREFIX): value
        for name, value in batch.items()
        if name.startswith(_SOURCE_PREFIX)
    }


_SHARE_OF_SPLIT = {
    (schema.STAGE1, schema.TRAIN): "share of users with both histories",
    (schema.STAGE1, schema.VALIDATION): "stage1_holdout",
    (schema.STAGE2, schema.TRAIN): "share of requests before the cutoffs",
    (schema.STAGE2, schema.VALIDATION): "validation_fraction",
    (schema.STAGE2, schema.TEST): "test_fraction",
    (schema.SOURCE_REQUESTS, schema.TRAIN): "share of source clicks before the cutoffs",
    (schema.SOURCE_REQUESTS, schema.VALIDATION): "validation_fraction",
}


def read_split(
    data_dir: str | pathlib.Path,
    stage: str,
    split: str,
    batch_size: int,
    shuffle_seed: int | None = None,
    by_length: bool = False,
    skip: int = 0,
    lossy: bool = False,
    share: float = 1.0,
) -> tf.data.Dataset:
    """Batches of one pass over a split, one of them possibly smaller.

    They have the times of clicks where the data set does.

    Args:
      shuffle_seed: order of the records; None keeps the order of the files.
      by_length: whether a batch holds requests of similar history lengths, so that little of
        it is padding; batches still come in the seed's order.
      skip: batches to leave out at the start; their records are read but not parsed.
      lossy: whether to do without what is missing or damaged (sitn_tf/shards.py).
      share: of the records, the kept ones of sitn_tf/label_share.py.

    Raises:
      InputError: no (whole) data set, the split has no shards, or one of them is missing.
    """
    features = schema.read_manifest(data_dir).features_of(stage)
    files = shards.find(data_dir, stage, split, lossy)
    if not files:
        raise InputError(
            f"{data_dir} has no {stage} records of the split {split!r}",
            "build the data set again with longer logs or a larger "
            f"{_SHARE_OF_SPLIT[stage, split]}",
        )
    records = tf.data.Dataset.from_tensor_slices(files)
    if shuffle_seed is not None:
        records = records.shuffle(len(files), seed=shuffle_seed)
    read = _until_damaged if lossy else tf.data.TFRecordDataset
    # A shard at a time, as if it held nothing else.
    records = records.interleave(
        lambda file: label_share.thinned(read(file), share),
        cycle_length=min(len(files), 16),
        block_length=16,
        num_parallel_calls=min(len(files), PARALLEL_CALLS),
        deterministic=True,
    )
    if shuffle_seed is not None:
        records = records.shuffle(SHUFFLE_RECORDS, seed=shuffle_seed)
    if by_length:
        batches = _batches_by_length(records, features, batch_size, shuffle_seed or 0, skip)
    else:
        batches = records.skip(skip * batch_size).batch(batch_size)
        batches = batches.map(
            lambda serialized: parse(serialized, features),
            num_parallel_calls=PARALLEL_CALLS,
            deterministic=True,
        )
    batches = batches.prefetch(PREFETCHED_BATCHES)
    # The autotuner's thread holds up the end of each pass (see replicas.split_rows).
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _until_damaged(file: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file).ignore_errors()


def _batches_by_length(
    records: tf.data.Dataset,
    features: Sequence[schema.Feature],
    batch_size: int,
    seed: int,
    skip: int,
) -> tf.data.Dataset:
    """Sorts the records of each LENGTH_WINDOW batches by length and cuts them into batches."""

    def parsed(window: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, dict]:
        return window, _parse_ragged(serialized, features)

    def cut(window: tf.Tensor, rows: dict[str, tf.Tensor | tf.RaggedTensor]) -> tf.data.Dataset:
        lengths = [rows[f.name].row_lengths() for f in schema.HISTORY_OF_DOMAIN.values()]
        order = tf.argsort(tf.reduce_max(lengths, axis=0), stable=True)
        begins = tf.range(0, tf.size(order), batch_size)
        begins = tf.random.experimental.stateless_shuffle(begins, seed=[seed, window])
        return tf.data.Dataset.from_tensor_slices(begins).map(
            lambda begin: _dense(
                {
                    name: tf.gather(value, order[begin : begin + batch_size])
                    for name, value in rows.items()
                }
            )
        )

    windows = records.batch(LENGTH_WINDOW * batch_size).enumerate().skip(skip // LENGTH_WINDOW)
    parsed_windows = windows.map(parsed, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
    return parsed_windows.flat_map(cut).skip(skip % LENGTH_WINDOW)


def read_epoch(
    data_dir: str | pathlib.Path,
    stage: str,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int = 0,
    lossy: bool = False,
    share: float = 1.0,
) -> tf.data.Dataset:
    """One pass over a stage's training split, in the order of this seed and epoch.

    Requests come in batches of similar lengths. Users don't: in stage 1 the others of a batch
    are the negatives, and who they are must not depend on length.

    Args:
      skip: batches to leave out at the start, for a pass that is continued.
      lossy, share: see `read_split`.
    """
    return read_split(
        data_dir,
        stage,
        schema.TRAIN,
        batch_size,
        shuffle_seed=seed * 1_000_003 + epoch,
        by_length=stage != schema.STAGE1,
        skip=skip,
        lossy=lossy,
        share=share,
    )


def read_onwards(
    data_dir: str | pathlib.Path,
    stage: str,
    batch_size: int,
    seed: int,
    batches: range,
    steps: int,
    lossy: bool = False,
) -> tf.data.Dataset:
    """Some batches of an endless row of passes over a stage's training split.

    Args:
      batches: which of them, by their numbers from the first pass's first batch.
      steps: batches in a pass.
    """
    first, skip = divmod(batches.start, steps)
    read = read_epoch(data_dir, stage, batch_size, seed, first, skip, lossy)
    for later in range(first + 1, (batches.stop - 1) // steps + 1):
        read = read.concatenate(read_epoch(data_dir, stage, batch_size, seed, later, lossy=lossy))
    return read.take(len(batches))
