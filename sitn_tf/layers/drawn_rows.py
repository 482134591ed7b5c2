"""What the rows of embedding tables start as: drawn alike whether a table is whole or in shards."""

import abc
import secrets
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from sitn_tf import schema

NORMALS_AT_A_TIME = 4
"""What a step of the Philox generator's counter gives."""


class _DrawnRows(tf_keras.initializers.Initializer):
    """Rows drawn from `tf.random.normal`'s numbers, of the global seed.

    A shard of a table is given its shape and offset, and draws the very rows that the whole table
    has there: no machine makes the whole, and how many there are changes nothing.
    """

    def __init__(self) -> None:
        self._seeds: tuple[int, int] | None = None

    def __call__(
        self,
        shape: tf.TensorShape,
        dtype: tf.DType = tf.float32,
        partition_shape: tuple[int, ...] | None = None,
        partition_offset: tuple[int, ...] = (0, 0),
    ) -> tf.Tensor:
        return self._rows(partition_shape or shape, dtype, partition_offset)

    @abc.abstractmethod
    def _rows(self, shape: Sequence[int], dtype: tf.DType, offset: tuple[int, ...]) -> tf.Tensor:
        """Rows of a `shape`, the first of which is row `offset[0]` of the table."""

    def _draw(self, shape: Sequence[int], dtype: tf.DType, offset: tuple[int, ...]) -> tf.Tensor:
        """Standard normal rows, see `_rows`."""
        rows, width = shape
        if self._seeds is None or not offset[0]:
            self._seeds = _next_seeds()
        skipped, within = divmod(offset[0] * width, NORMALS_AT_A_TIME)
        drawn = tf.raw_ops.StatelessRandomNormalV2(
            shape=[within + rows * width],
            key=tf.constant([self._seeds[0]], tf.uint64),
            counter=tf.constant([skipped, self._seeds[1]], tf.uint64),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=dtype,
        )
        return tf.reshape(drawn[within:], [rows, width])


class SpareReservedRows(_DrawnRows):
    """Normal rows, but zeros for padding and unknown."""

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = stddev

    def _rows(self, shape: Sequence[int], dtype: tf.DType, offset: tuple[int, ...]) -> tf.Tensor:
        # What is drawn has no name, so that it is gone when the reserved rows are spared: a shard
        # is there twice at most while it is made.
        table = self.stddev * self._draw(shape, dtype, offset)
        reserved = tf.range(shape[0]) + offset[0] < schema.FIRST_ID
        return tf.where(reserved[:, None], tf.zeros([], dtype), table)


class RandomSigns(_DrawnRows):
    """1 or -1: times a normal row, normal again, and unlike the row of another quotient."""

    def _rows(self, shape: Sequence[int], dtype: tf.DType, offset: tuple[int, ...]) -> tf.Tensor:
        positive = self._draw(shape, dtype, offset) > 0
        return 2 * tf.cast(positive, dtype) - 1


def _next_seeds() -> tuple[int, int]:
    """The seeds that the next random op of TensorFlow would have; any, without a global seed."""
    seeds = tf.compat.v1.get_seed(None)
    first, second = (secrets.randbits(63) if seed is None else seed for seed in seeds)
    return first, second
