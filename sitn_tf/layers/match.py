"""What stage 1 trains, for a score to see: cosines of a user's instances and candidates."""

from collections.abc import Sequence

import tensorflow as tf

from sitn_tf import losses

SCALE = 3.0
"""Of the cosines, which are small beside what else a score sees."""


def match(instances: Sequence[tf.Tensor], candidates: tf.Tensor) -> tf.Tensor:
    """3 cos(p, v) of each domain's instance p and each candidate's item vector v.

    The item vector itself, for an instance is a mean in the items' own space: encoders add to
    what they encode and start as averages of it (Eq. 1 with a residual).

    Args:
      instances: `[B, D]` float32 of each domain, of length 1 or zeros.
      candidates: `[B, C, D]`.

    Returns:
      `[B, C, domains]` float32; 0 for zeros on either side.
    """
    unit = losses.unit(tf.cast(candidates, tf.float32))
    return SCALE * tf.matmul(unit, tf.stack(instances, axis=2))
