"""How alike two users' histories are, from short signatures that replicas can exchange."""

import numpy as np
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.data import Batch
from sitn_tf.layers import tensor_hashes

HASHES = 64
"""Values of a signature: the standard error of a Jaccard index of 0.8 is 0.05."""

MULTIPLIERS = tuple(
    int(m) | 1 for m in np.random.default_rng(0).integers(0, 2**64, HASHES, dtype=np.uint64)
)
SHIFT = np.uint64(1)


def minhash(histories: Batch) -> tf.Tensor:
    """Signatures of the sets of items in both histories (Broder, 1997).

    Args:
      histories: `[B, T]` int64 ids a domain, by feature name.

    Returns:
      `[B, HASHES]` int64; two signatures agree in about as large a share of their values as
      the Jaccard index of the sets.
    """
    ids = [history * len(histories) + number for number, history in enumerate(histories.values())]
    real = tf.concat([history != schema.PAD_ID for history in histories.values()], axis=1)
    tokens = tensor_hashes.scramble(tf.concat(ids, axis=1))
    values = []
    for multiplier in MULTIPLIERS:
        # Multiply-shift (Dietzfelbinger et al., 1997): the upper bits of an odd multiple.
        hashed = tf.bitwise.right_shift(tokens * tf.constant(multiplier, tf.uint64), SHIFT)
        signed = tf.where(real, tf.bitcast(hashed, tf.int64), tf.int64.max)
        values.append(tf.reduce_min(signed, axis=1))
    return tf.stack(values, axis=1)


def likeness(ours: tf.Tensor, theirs: tf.Tensor) -> tf.Tensor:
    """Estimated Jaccard indices of signatures `[n, S]` with `[N, S]` → `[n, N]` float32."""
    total = tf.zeros([tf.shape(ours)[0], tf.shape(theirs)[0]])
    for a, b in zip(tf.unstack(ours, axis=1), tf.unstack(theirs, axis=1), strict=True):
        total += tf.cast(a[:, None] == b[None, :], tf.float32)
    return total / HASHES
