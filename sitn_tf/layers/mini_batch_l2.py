"""DIN's mini-batch aware regularisation: L2 of the embeddings that a batch has, by their rarity.

Zhou et al., KDD 2018, Section 5.1.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.distributed.replicas import gather_rows


def mini_batch_l2(
    vectors_of: Callable[[tf.Tensor], tf.Tensor],
    counts_of: Callable[[tf.Tensor], tf.Tensor],
    ids: Sequence[tf.Tensor],
) -> tf.Tensor:
    """A replica's share of 0.5 sum_j |w_j|^2 / n_j over the items j of the global batch.

    Its gradient is w_j / n_j, once for each item however often and on however many replicas it
    is there; rows of other items have none.

    Args:
      vectors_of: ids `[U]` → w, `[U, D]`.
      counts_of: ids `[U]` → n, `[U]` float32: how often an item occurs in all samples; below 1
        counts as 1.
      ids: int64 of any shapes, of this replica's rows; padding does not count.

    Returns:
      Scalar float32.
    """
    mine, _ = tf.unique(tf.concat([tf.reshape(part, [-1]) for part in ids], axis=0))
    (everyone,), own = gather_rows([mine])
    distinct, place = tf.unique(everyone)
    # The first replica that has an item answers for it.
    positions = tf.range(tf.size(place))
    first = tf.math.unsorted_segment_min(positions, place, tf.size(distinct))
    answers = tf.gather(first, tf.gather(place, own)) == own
    kept = tf.boolean_mask(mine, answers & (mine != schema.PAD_ID))
    squares = tf.reduce_sum(tf.square(tf.cast(vectors_of(kept), tf.float32)), axis=-1)
    return 0.5 * tf.reduce_sum(squares / tf.maximum(counts_of(kept), 1.0))
