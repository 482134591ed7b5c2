"""Records of a split, and a share → those that are learned from: the points of a learning curve.

Histories, stage 1's users, the other splits, ids and items stay as they are: what is left out are
labels alone.
"""

import zlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

_AT_ONCE = 1024
"""Records hashed in one call."""


def is_kept(record: bytes, share: float) -> bool:
    """Whether a record is among the kept, by a hash of its bytes: the same for any shards, and
    a larger share keeps what a smaller one does.
    """
    return zlib.crc32(record) < share * 2**32


def thinned(records: tf.data.Dataset, share: float) -> tf.data.Dataset:
    """The kept ones of serialized records, in their order; all of them for a share of 1."""
    if share == 1:
        return records

    def keep(rows: np.ndarray) -> np.ndarray:
        return np.array([is_kept(row, share) for row in rows], bool)

    def kept(rows: tf.Tensor) -> tf.Tensor:
        mask = tf.numpy_function(keep, [rows], tf.bool)
        return tf.boolean_mask(rows, tf.ensure_shape(mask, [None]))

    return records.batch(_AT_ONCE).map(kept).unbatch()


def count(files: Iterable[str], share: float, lossy: bool = False) -> tuple[int, int]:
    """How many records of some shards are kept, and how many there are.

    Args:
      lossy: whether what follows a damaged record does not count (sitn_tf/shards.py).
    """
    kept = whole = 0
    for file in files:
        records = tf.data.TFRecordDataset(file)
        for row in (records.ignore_errors() if lossy else records).as_numpy_iterator():
            kept, whole = kept + is_kept(row, share), whole + 1
    return kept, whole
