"""Terms of linear models and factorisation machines: linear weights, pairs, hashed crosses."""

import numpy as np
import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.distributed.tables import rows_of
from sitn_tf.layers import tensor_hashes
from sitn_tf.layers.embedding import ItemEmbedding, VectorProjection, add_table

SMALLEST_DIGIT = 1e-3
"""What a digit 1 is at least, in the row of an item whose vector is zero."""


def pairwise(fields: tf.Tensor) -> tf.Tensor:
    """Sum of the dot products of all pairs of fields, in time linear in their number.

    Rendle, "Factorization Machines", ICDM 2010, Lemma 3.1, with x folded into the vectors:
    sum_{i<j} <v_i, v_j> = ((sum_i v_i)^2 - sum_i v_i^2) / 2, summed over the dimensions.

    Args:
      fields: `[..., F, D]`.

    Returns:
      `[...]`.
    """
    square_of_sum = tf.square(tf.reduce_sum(fields, axis=-2))
    sum_of_squares = tf.reduce_sum(tf.square(fields), axis=-2)
    return tf.reduce_sum(square_of_sum - sum_of_squares, axis=-1) / 2


class ItemWeights(ItemEmbedding):
    """Linear weights of items, of their ids and side features, which start at zero.

    An item embedding of as many dimensions as an item has roles: being shown and having been
    clicked are different features of a request, each with weights of its own.

    Args:
      items: whose ids, modes and side features these are; what an item has is kept once.
      roles: numbers a row.
    """

    def __init__(self, items: ItemEmbedding, roles: int) -> None:
        name, vectors = f"{items.table.domain}_weights", items.table.vectors
        projection = None
        if vectors is not None:
            projection = VectorProjection(vectors.shape[1], roles, f"{name}/vector", "zeros")
        super().__init__(items.table, items.config, roles, name, projection)
        self._features = {**items.feature_ids, schema.VECTOR: items.vectors_of_items}

    def _values(self, feature: str, values: np.ndarray) -> tf.Variable:
        return self._features[feature]

    def _weights(self, name: str, rows: int, share: float = 1.0) -> tf.Variable:
        return add_table(self, name, rows, self.dim, "zeros")


class HashedCrosses(tf_keras.layers.Layer):
    """Weights of pairs of a candidate and a clicked item, hashed into buckets; they start at zero.

    The cross-product transformation of Wide & Deep: a pair is a binary feature of its own.

    Args:
      buckets: weights that the pairs share.
    """

    def __init__(self, buckets: int, name: str) -> None:
        super().__init__(name=name)
        self.buckets = buckets

    def build(self, input_shape: tf.TensorShape) -> None:
        self.table = add_table(self, "weights", 1 + self.buckets, 1, "zeros")
        super().build(input_shape)

    def call(self, candidates: tf.Tensor, clicked: tf.Tensor) -> tf.Tensor:
        """Ids `[B, C]` and `[B, H]` int64, 0 anywhere pads → sums of weights `[B, C]` float32."""
        weights = rows_of(self.table, crossed_rows(candidates, clicked, self.buckets))[..., 0]
        real = (candidates != schema.PAD_ID)[:, :, None] & (clicked != schema.PAD_ID)[:, None, :]
        return tf.reduce_sum(tf.cast(weights, tf.float32) * tf.cast(real, tf.float32), axis=-1)


def crossed_rows(candidates: tf.Tensor, clicked: tf.Tensor, buckets: int) -> tf.Tensor:
    """Ids `[B, C]` and `[B, H]` int64 → rows of the pairs `[B, C, H]` int64.

    1 + a hash (SplitMix64) below `buckets`, the same on every machine; 0 where either pads.
    """
    shown, known = candidates[:, :, None], clicked[:, None, :]
    rows = 1 + tensor_hashes.below(tensor_hashes.combine(shown, known), buckets)
    real = (shown != schema.PAD_ID) & (known != schema.PAD_ID)
    return tf.where(real, rows, tf.zeros_like(rows))


def most_recent(ids: tf.Tensor, count: int) -> tf.Tensor:
    """The last `count` real ids of each row, newest first, each once.

    Args:
      ids: `[B, T]` int64, oldest first, 0 anywhere pads.

    Returns:
      `[B, count]`, 0 where there are fewer or one was there before.
    """
    padded = tf.pad(ids, [[0, 0], [0, count]])
    place = tf.range(1, tf.shape(padded)[1] + 1)
    newest = tf.math.top_k(tf.where(padded != schema.PAD_ID, place, 0), count).indices
    recent = tf.gather(padded, newest, batch_dims=1)
    equal = recent[:, :, None] == recent[:, None, :]
    before = tf.range(count)[None, :] < tf.range(count)[:, None]
    return tf.where(tf.reduce_any(equal & before, axis=-1), tf.zeros_like(recent), recent)


def digits_of(ids: tf.Tensor, rows: int, vectors: tf.Tensor) -> tf.Tensor:
    """Ids as further columns of their vectors, one a binary digit, so that scoring knows them.

    A digit is 0 or the largest magnitude of the vector: what rounds vectors, be it to 8 bits a
    number by the row's largest, neither loses a digit nor rounds the vector any worse for it.

    Args:
      ids: `[U]` int64 below `rows`.
      vectors: `[U, W]`, without a gradient from here.

    Returns:
      `[U, digits]` of the vectors' dtype, lowest first; zeros for id 0.
    """
    places = tf.range((rows - 1).bit_length(), dtype=tf.int64)
    digits = tf.bitwise.right_shift(ids[:, None], places) & 1
    size = tf.reduce_max(tf.abs(tf.stop_gradient(vectors)), axis=-1, keepdims=True)
    return tf.cast(digits, vectors.dtype) * tf.maximum(size, SMALLEST_DIGIT)


def ids_of(digits: tf.Tensor) -> tf.Tensor:
    """`[..., digits]` of `digits_of`, rounded or not → `[...]` int64."""
    places = tf.range(digits.shape[-1], dtype=tf.int64)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(digits > 0, tf.int64), places), axis=-1)
