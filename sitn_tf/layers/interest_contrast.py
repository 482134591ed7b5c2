"""CLSR's contrast: an interest is nearer to its own proxy than to the other interest's.

Zheng et al., WWW 2022. Proxies come from the history itself: p_l, of long-term interests, is the
mean of all its items, p_s, of short-term interests, the mean of its last k. Each of u_l, u_s, p_l
and p_s is an anchor once:

    f(u_l, p_l, p_s) + f(p_l, u_l, u_s) + f(u_s, p_s, p_l) + f(p_s, u_s, u_l)

where f(a, p, q) is small if a is nearer to p than to q.
"""

import functools

import tensorflow as tf

from sitn_tf.distributed.replicas import global_sum
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.layers.encoder import recency
from sitn_tf.sections import ClsrConfig


def bpr(anchor: tf.Tensor, near: tf.Tensor, far: tf.Tensor) -> tf.Tensor:
    """softplus(a . q - a . p): three `[..., D]` → `[...]`."""
    return tf.nn.softplus(tf.reduce_sum(anchor * (far - near), axis=-1))


def triplet(anchor: tf.Tensor, near: tf.Tensor, far: tf.Tensor, margin: float) -> tf.Tensor:
    """sum_d max(0, (a_d - p_d)^2 - (a_d - q_d)^2 + m): three `[..., D]` → `[...]`.

    A hinge a dimension, as in the authors' code; the paper writes d(a, p) - d(a, q) + m.
    """
    nearer = tf.square(anchor - near) - tf.square(anchor - far)
    return tf.reduce_sum(tf.nn.relu(nearer + margin), axis=-1)


def proxies(vectors: tf.Tensor, mask: tf.Tensor, recent: int) -> tuple[tf.Tensor, tf.Tensor]:
    """p_l and p_s, `[B, D]` each: the means of a history's items and of its `recent` last ones.

    Args:
      vectors: `[B, T, D]`, oldest first.
      mask: `[B, T]` bool.
    """
    last = mask & (recency(mask, recent + 1) < recent)
    return masked_mean(vectors, mask), masked_mean(vectors, last)


def interest_contrast(
    long: tf.Tensor,
    short: tf.Tensor,
    vectors: tf.Tensor,
    mask: tf.Tensor,
    shown: tf.Tensor,
    config: ClsrConfig,
) -> tf.Tensor:
    """A replica's share of the mean of the four terms over the global batch's candidates.

    Requests whose history is not longer than `clsr.longer_than` take no part: the proxies of a
    few items are nearly the same.

    Args:
      long: `[B, D]`, u_l.
      short: `[B, C, D]`, u_s of each candidate.
      vectors: `[B, T, D]` of the history, oldest first.
      mask: `[B, T]` bool.
      shown: `[B, C]` bool, which candidates are real.

    Returns:
      Scalar float32; 0 where none takes part.
    """
    prefers = bpr
    if config.contrast == "triplet":
        prefers = functools.partial(triplet, margin=config.margin)
    means = proxies(tf.cast(vectors, tf.float32), mask, config.recent_items)
    whole, recent = (mean[:, None] for mean in means)
    long, short = tf.cast(long, tf.float32)[:, None], tf.cast(short, tf.float32)
    terms = (
        prefers(long, whole, recent)
        + prefers(whole, long, short)
        + prefers(short, recent, whole)
        + prefers(recent, short, long)
    )
    length = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    counted = tf.cast(shown & (length > config.longer_than)[:, None], tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(terms * counted), global_sum(tf.reduce_sum(counted)))
