"""Hashes as tensors: SplitMix64's finaliser (Steele et al., 2014) over 64-bit integers."""

import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def combine(*parts: tf.Tensor) -> tf.Tensor:
    """A hash of int64 tensors that broadcast against each other, as uint64."""
    x = tf.bitcast(parts[0], tf.uint64)
    for part in parts[1:]:
        x = _mix(x + tf.bitcast(part, tf.uint64) * tf.constant(_GOLDEN, tf.uint64))
    return x


def scramble(x: tf.Tensor) -> tf.Tensor:
    """A hash of an int64 tensor, as uint64."""
    return _mix(tf.bitcast(x, tf.uint64) + tf.constant(_GOLDEN, tf.uint64))


def uniform(x: tf.Tensor) -> tf.Tensor:
    """uint64 hashes → float32 in [0, 1), from the upper 24 bits."""
    return tf.cast(tf.bitwise.right_shift(x, tf.constant(40, tf.uint64)), tf.float32) / 2.0**24


def _mix(x: tf.Tensor) -> tf.Tensor:
    for shift, factor in _ROUNDS:
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(31, tf.uint64)))
