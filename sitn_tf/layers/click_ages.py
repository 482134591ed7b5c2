"""Times of clicks → how long ago each was, and what of a learned curve is read at that age.

The curve has a learned vector at each point of log2(1 + hours) = 0, 1, 2, ... and is straight in
between: minutes and hours after a click are told apart, a week from eight days hardly.
"""

import math

import tensorflow as tf

HOUR_SECONDS = 3600

POINTS = 21
"""Of the curve: from no time at all to 2^20 hours, 120 years."""

UNKNOWN = -1
"""The age of a click whose time, or whose request's, is not known."""


def before(times: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
    """Seconds from each click to `now`.

    Args:
      times: `[B, T]` int64, Unix seconds.
      now: `[B]` int64, Unix seconds.

    Returns:
      `[B, T]` int64; UNKNOWN where a time is not positive, or the click is after `now`.
    """
    now = now[:, None]
    known = (times > 0) & (now > 0) & (times <= now)
    return tf.where(known, now - times, tf.constant(UNKNOWN, tf.int64))


def before_newest(times: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Seconds from each click to the newest one of its history.

    Where no request says when now is. A time that histories of both domains share would tell an
    encoder when a user was active, and a contrast of the domains would be won by that alone.

    Args:
      times: `[B, T]` int64, Unix seconds.
      mask: `[B, T]` bool, True for real clicks.

    Returns:
      `[B, T]` int64, UNKNOWN where a time is not positive or there is no click.
    """
    times = tf.where(mask, times, tf.zeros_like(times))
    # Not the bare maximum: of a batch without a column that is the smallest int64.
    return before(times, tf.maximum(tf.reduce_max(times, axis=1), 0))


def shares(ages: tf.Tensor) -> tf.Tensor:
    """How much of each point of the curve is read.

    Args:
      ages: `[B, T]` int64 seconds; a negative one is not known.

    Returns:
      `[B, T, POINTS]` float32: 1 in all, of the one or two points next to log2(1 + hours), and
      none of an age that is not known.
    """
    hours = tf.cast(tf.maximum(ages, 0), tf.float32) / HOUR_SECONDS
    place = tf.minimum(tf.math.log1p(hours) / math.log(2.0), POINTS - 1.0)
    near = tf.nn.relu(1.0 - tf.abs(place[..., None] - tf.range(POINTS, dtype=tf.float32)))
    return tf.where((ages >= 0)[..., None], near, tf.zeros_like(near))
