"""DIEN's auxiliary loss: each state of a history should know the click that comes next.

Zhou et al., AAAI 2019, L_aux. What stands against a click is an item of another history of the
global batch, so items are drawn as often as they are clicked and no further row of a table is
read. The draws follow from the step and from the place in the global batch: a continued run, or
another number of replicas, draws the same.
"""

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.distributed.replicas import gather_rows, global_sum
from sitn_tf.layers import randomness


def items_of_others(ids: tf.Tensor, number: int) -> tf.Tensor:
    """For every place of a history an item of the global batch's other histories.

    Args:
      ids: `[n, T]` int64, of this replica's rows; T is the same on all replicas.
      number: of who draws, see `randomness.uniform`.

    Returns:
      `[n, T]` int64; padding where no other history has an item.
    """
    (everyone,), own = gather_rows([ids])
    real = everyone != schema.PAD_ID
    lengths = tf.reduce_sum(tf.cast(real, tf.int32), axis=1)
    count = tf.reduce_sum(lengths)
    others = (count - lengths)[:, None]
    # For all rows, of which the own ones are taken last: of a replica without rows the same, in a
    # graph of known shapes, ends the process with a floating point exception (TensorFlow 2.21).
    drawn = randomness.uniform(tf.shape(everyone), number, everywhere=True)
    # Behind a row's own items, in a circle: rounding up must not end at its own first one.
    place = tf.minimum(tf.cast(drawn * tf.cast(others, drawn.dtype), tf.int32), others - 1)
    place = (tf.cumsum(lengths)[:, None] + place) % tf.maximum(count, 1)
    pool = tf.concat([tf.boolean_mask(everyone, real), [schema.PAD_ID]], axis=0)
    nothing = tf.constant(schema.PAD_ID, ids.dtype)
    return tf.gather(tf.where(others > 0, tf.gather(pool, place), nothing), own)


def next_click_loss(
    states: tf.Tensor,
    clicks: tf.Tensor,
    against: tf.Tensor,
    follows: tf.Tensor,
    differs: tf.Tensor,
) -> tf.Tensor:
    """A replica's share of the mean, over the global batch's steps, of

        -log sigmoid(h_t . e_{t+1}) - log(1 - sigmoid(h_t . ê_{t+1}))

    Args:
      states: `[B, T, D]`, h.
      clicks: `[B, T, D]`, e.
      against: `[B, T, D]`, ê.
      follows: `[B, T]` bool, whether a place is a click that has one before it.
      differs: `[B, T]` bool, whether ê is there and another item than e.

    Returns:
      Scalar float32; 0 where no click follows another.
    """

    def logits(items: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_sum(states[:, :-1] * items[:, 1:], axis=-1), tf.float32)

    real = tf.cast(follows[:, 1:], tf.float32)
    negative = tf.cast(differs[:, 1:], tf.float32) * tf.nn.softplus(logits(against))
    total = tf.reduce_sum(real * (tf.nn.softplus(-logits(clicks)) + negative))
    return tf.math.divide_no_nan(total, global_sum(tf.reduce_sum(real)))
