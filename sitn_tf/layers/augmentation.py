"""Stage 1's augmentation of histories, the same however a batch is split over replicas.

Every choice depends on (seed, step, user, history, position) alone, by a hash: no random state
is needed, and any split of the batch makes the same choices. A user's histories draw apart: were
the same places hidden in both, how many are would tell the contrast which instances are one user's.
"""

import dataclasses

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.layers import tensor_hashes
from sitn_tf.sections import Stage1Config

_MASK, _CROP, _SHUFFLE = range(3)


@dataclasses.dataclass(frozen=True)
class Draw:
    """Where the random numbers of one step come from.

    Attributes:
      user: `[B]` int64.
      step: scalar int64.
      seed: of the run.
      history: number of the history among those of a user.
    """

    user: tf.Tensor
    step: tf.Tensor
    seed: int
    history: int

    def uniform(self, purpose: int, size: tf.Tensor | int) -> tf.Tensor:
        """`[B, size]` numbers in [0, 1)."""
        position = tf.range(tf.cast(size, tf.int64), dtype=tf.int64)[None, :]
        salt = tf.constant(self.seed * 8 + purpose, tf.int64)
        history = tf.constant(self.history, tf.int64)
        step = tf.cast(self.step, tf.int64)
        return tensor_hashes.uniform(
            tensor_hashes.combine(self.user[:, None], position, step, salt, history)
        )


def augment(
    ids: tf.Tensor, times: tf.Tensor | None, draw: Draw, settings: Stage1Config
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Crops, shuffles and hides the items of histories; the time of a click stays with its id.

    Args:
      ids: `[B, T]` int64, real ones first.
      times: `[B, T]` int64, if the model reads them.

    Returns:
      Both `[B, T]` int64, 0 where padded.
    """
    ids = crop(ids, draw, settings.item_crop)
    if settings.item_shuffle:
        order = shuffled(ids, draw, settings.item_shuffle)
        ids = tf.gather(ids, order, batch_dims=1)
        times = None if times is None else tf.gather(times, order, batch_dims=1)
    ids = hide_items(ids, draw, settings.item_mask)
    if times is not None:
        times = tf.where(ids != schema.PAD_ID, times, tf.zeros_like(times))
    return ids, times


def hide_items(history: tf.Tensor, draw: Draw, probability: float) -> tf.Tensor:
    """Pads over a random part of each history; a history never becomes empty by it.

    Args:
      history: `[B, T]` int64 ids.
      probability: of an item to be hidden.

    Returns:
      `[B, T]` int64.
    """
    if not probability:
        return history
    kept = draw.uniform(_MASK, tf.shape(history)[1]) >= probability
    kept = kept & (history != schema.PAD_ID)
    survives = tf.reduce_any(kept, axis=1, keepdims=True)
    return tf.where(kept | ~survives, history, tf.zeros_like(history))


def crop(history: tf.Tensor, draw: Draw, share: float) -> tf.Tensor:
    """Keeps a random stretch of each history, of 1 - `share` of its items but at least one.

    CL4SRec's item crop (Xie et al., ICDE 2022).

    Args:
      history: `[B, T]` int64 ids, real ones first.
      share: of the items to cut off.

    Returns:
      `[B, T]` int64, padded where cut.
    """
    if not share:
        return history
    length = tf.reduce_sum(tf.cast(history != schema.PAD_ID, tf.float32), axis=1, keepdims=True)
    kept = tf.maximum(tf.math.ceil(length * (1.0 - share)), 1.0)
    first = tf.floor(draw.uniform(_CROP, 1) * (length - kept + 1.0))
    position = tf.cast(tf.range(tf.shape(history)[1]), tf.float32)[None, :]
    inside = (position >= first) & (position < first + kept)
    return tf.where(inside, history, tf.zeros_like(history))


def shuffled(history: tf.Tensor, draw: Draw, reach: float) -> tf.Tensor:
    """An order in which some pairs of items change places that are near each other.

    An item's key is (1 - reach) of its place and a random number below reach of the length, so a
    pair may change places if it is less than reach / (1 - reach) of the length apart.

    Args:
      history: `[B, T]` int64 ids.
      reach: 0 keeps the order, 1 makes it random; from 0.5 on any pair may change places.

    Returns:
      `[B, T]` int32, the places of the items in their new order, real ones first.
    """
    real = tf.cast(history != schema.PAD_ID, tf.float32)
    length = tf.reduce_sum(real, axis=1, keepdims=True)
    width = tf.shape(history)[1]
    place = tf.cast(tf.range(width), tf.float32)[None, :] * (1.0 - reach)
    key = place + reach * length * draw.uniform(_SHUFFLE, width)
    past_the_end = 2.0 * tf.cast(width, tf.float32)
    return tf.argsort(tf.where(real > 0.0, key, past_the_end), axis=1, stable=True)
