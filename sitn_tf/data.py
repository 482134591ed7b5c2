"""TFRecord shards of a data set directory → batches of dense tensors.

One parser serves training and serving. Batches are cut to their longest history, so
padding costs no more than the spread of lengths within a batch.
"""

import pathlib
from collections.abc import Iterable

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.cli import UsageError

Batch = dict[str, tf.Tensor]

_TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "bytes": tf.string}

PARALLEL_CALLS = 2
PREFETCHED_BATCHES = 8
SHUFFLE_RECORDS = 100_000
"""Records held for shuffling; the pipeline has already permuted each shard."""


def parse(serialized: tf.Tensor, features: Iterable[schema.Feature]) -> Batch:
    """Parses serialized `tf.train.Example`s.

    Args:
      serialized: `[B]` string.

    Returns:
      By feature name: `[B]` for single values, `[B, longest]` padded with 0 for lists.
    """
    described = {
        f.name: tf.io.RaggedFeature(_TF_DTYPES[f.dtype], row_splits_dtype=tf.int64)
        if f.ragged
        else tf.io.FixedLenFeature([], _TF_DTYPES[f.dtype])
        for f in features
    }
    parsed = tf.io.parse_example(serialized, described)
    return {
        name: value.to_tensor() if isinstance(value, tf.RaggedTensor) else value
        for name, value in parsed.items()
    }


def parse_stage1(serialized: tf.Tensor) -> Batch:
    """`[B]` serialized users → the features of schema.STAGE1_FEATURES."""
    return parse(serialized, schema.STAGE1_FEATURES)


def parse_stage2(serialized: tf.Tensor) -> Batch:
    """`[B]` serialized requests → the features of schema.STAGE2_FEATURES."""
    return parse(serialized, schema.STAGE2_FEATURES)


_SHARE_FLAGS = {
    (schema.STAGE1, schema.TRAIN): "share of users with both histories",
    (schema.STAGE1, schema.VALIDATION): "--stage1_holdout",
    (schema.STAGE2, schema.TRAIN): "share of requests before the cutoffs",
    (schema.STAGE2, schema.VALIDATION): "--validation_fraction",
    (schema.STAGE2, schema.TEST): "--test_fraction",
}

_PARSERS = {schema.STAGE1: parse_stage1, schema.STAGE2: parse_stage2}


def read_split(
    data_dir: str | pathlib.Path,
    stage: str,
    split: str,
    batch_size: int,
    shuffle_seed: int | None = None,
    skip: int = 0,
) -> tf.data.Dataset:
    """Batches of one pass over a split, the last one possibly smaller.

    Args:
      shuffle_seed: order of the records; None keeps the order of the files.
      skip: batches to leave out at the start; their records are read but not parsed.

    Raises:
      UsageError: the split has no shards.
    """
    pattern = pathlib.Path(data_dir) / schema.shard_glob(stage, split)
    files = sorted(tf.io.gfile.glob(str(pattern)))
    if not files:
        raise UsageError(
            f"{data_dir} has no {stage} records of the split {split!r}: "
            f"build the data set again with longer logs or a larger {_SHARE_FLAGS[stage, split]}"
        )
    records = tf.data.Dataset.from_tensor_slices(files)
    if shuffle_seed is not None:
        records = records.shuffle(len(files), seed=shuffle_seed)
    records = records.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(len(files), 16),
        block_length=16,
        num_parallel_calls=min(len(files), PARALLEL_CALLS),
        deterministic=True,
    )
    if shuffle_seed is not None:
        records = records.shuffle(SHUFFLE_RECORDS, seed=shuffle_seed)
    batches = (
        records.skip(skip * batch_size)
        .batch(batch_size)
        .map(_PARSERS[stage], num_parallel_calls=PARALLEL_CALLS, deterministic=True)
        .prefetch(PREFETCHED_BATCHES)
    )
    # The autotuner's thread holds up the end of each pass (see distribution.split_rows).
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def read_epoch(
    data_dir: str | pathlib.Path, stage: str, batch_size: int, seed: int, epoch: int, skip: int = 0
) -> tf.data.Dataset:
    """One pass over a stage's training split, in the order of this seed and epoch.

    Args:
      skip: batches to leave out at the start, for a pass that is continued.
    """
    return read_split(
        data_dir,
        stage,
        schema.TRAIN,
        batch_size,
        shuffle_seed=seed * 1_000_003 + epoch,
        skip=skip,
    )
