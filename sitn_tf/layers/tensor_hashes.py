"""Hashes as tensors: SplitMix64 over 64-bit integers."""

import tensorflow as tf

from sitn_tf import splitmix


def combine(*parts: tf.Tensor) -> tf.Tensor:
    """A hash of int64 tensors that broadcast against each other, as uint64."""
    x = tf.bitcast(parts[0], tf.uint64)
    for part in parts[1:]:
        x = _mix(x + tf.bitcast(part, tf.uint64) * _constant(splitmix.GOLDEN))
    return x


def scramble(x: tf.Tensor) -> tf.Tensor:
    """A hash of an int64 tensor, as uint64."""
    return _mix(tf.bitcast(x, tf.uint64) + _constant(splitmix.GOLDEN))


def below(x: tf.Tensor, bound: int) -> tf.Tensor:
    """uint64 hashes → int64 in [0, bound), from the upper 31 bits."""
    return tf.cast(tf.bitwise.right_shift(x, _constant(33)), tf.int64) % bound


def uniform(x: tf.Tensor) -> tf.Tensor:
    """uint64 hashes → float32 in [0, 1), from the upper 24 bits."""
    return tf.cast(tf.bitwise.right_shift(x, _constant(40)), tf.float32) / 2.0**24


def _mix(x: tf.Tensor) -> tf.Tensor:
    return splitmix.finish(x, tf.bitwise.right_shift, _constant)


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)
