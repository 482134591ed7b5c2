"""Attention: multi-head (Eq. 1), by DIN's activation unit, and by CLSR's."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf.layers.dice import Dice
from sitn_tf.losses import MASKED_LOGIT


class Keys(NamedTuple):
    """What a query attends to: projected once, used by any number of queries.

    Attributes:
      keys: `[B, T, h, d]`.
      values: `[B, T, h, d]`.
      mask: `[B, T]` bool, True for real positions.
    """

    keys: tf.Tensor
    values: tf.Tensor
    mask: tf.Tensor


def masked_attention(
    queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """softmax(Q K^T) V over the positions that the mask keeps.

    Attention is bound by the passes over its `[B, h, Q, T]` weights, not by its products, so
    as much as possible goes into the products: the mask is one more column of the keys, masked
    values are zero, and the gradient is written by hand (Dao et al., "FlashAttention", NeurIPS
    2022, Appendix B.2: the softmax's own sum is the row's output times its gradient).

    Args:
      queries: `[B, h, Q, d]`, scaled.
      keys: `[B, h, T, d]`.
      values: `[B, h, T, d]`.
      mask: `[B, T]` bool, True for real positions.

    Returns:
      `[B, h, Q, d]`; zeros for rows in which the mask keeps nothing.
    """
    seen = mask[:, None, :, None]
    values = tf.where(seen, values, tf.zeros([], values.dtype))
    lowest = max(MASKED_LOGIT, float(keys.dtype.min) / 2)
    hidden = tf.where(seen, tf.zeros([], keys.dtype), tf.cast(lowest, keys.dtype))
    return _attention(queries, keys, values, tf.broadcast_to(hidden, tf.shape(keys[..., :1])))


@tf.custom_gradient
def _attention(
    queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, hidden: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
    """Attention with `hidden`, `[B, h, T, 1]`, added to every query's logits."""
    logits = tf.matmul(_with_column(queries), tf.concat([keys, hidden], axis=-1), transpose_b=True)
    weights = tf.nn.softmax(logits)
    attended = tf.matmul(weights, values)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        share = tf.reduce_sum(upstream * attended, axis=-1, keepdims=True)
        by_logit = weights * tf.matmul(
            tf.concat([upstream, -share], axis=-1), _with_column(values), transpose_b=True
        )
        # A^T B as (B^T A)^T: the small factor is transposed instead of the `[Q, T]` one.
        by_keys = tf.matmul(tf.linalg.matrix_transpose(queries), by_logit)
        by_values = tf.matmul(tf.linalg.matrix_transpose(upstream), weights)
        return (
            tf.matmul(by_logit, keys),
            tf.linalg.matrix_transpose(by_keys),
            tf.linalg.matrix_transpose(by_values),
            None,
        )

    return attended, gradient


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis of what the mask keeps; exactly 0 elsewhere.

    Args:
      logits: `[..., T]`.
      mask: bool, of a shape that broadcasts to that of the logits.
    """
    lowest = tf.cast(max(MASKED_LOGIT, float(logits.dtype.min) / 2), logits.dtype)
    weights = tf.nn.softmax(tf.where(mask, logits, lowest))
    return tf.where(mask, weights, tf.zeros([], weights.dtype))


def _with_column(x: tf.Tensor) -> tf.Tensor:
    """`[..., d]` → `[..., d + 1]`, the last one 1."""
    return tf.concat([x, tf.ones_like(x[..., :1])], axis=-1)


def _heads_first(x: tf.Tensor) -> tf.Tensor:
    """`[B, T, h, d]` ⇄ `[B, h, T, d]`."""
    return tf.transpose(x, [0, 2, 1, 3])


class MultiHeadAttention(tf_keras.layers.Layer):
    """softmax(Q K^T / sqrt(d)) V in h heads, concatenated and projected (Eq. 1).

    Projections have no bias, so that a row without any key gives exactly zero. Those of
    values and output start as the identity: an untrained layer averages what it attends to,
    in the items' own space.

    Args:
      dim: D, of queries, keys and outputs.
      heads: h; d is D / h.
    """

    def __init__(self, dim: int, heads: int, name: str | None = None) -> None:
        super().__init__(name=name)
        if dim % heads:
            raise ValueError(f"dim={dim} is not a multiple of heads={heads}")
        self.dim = dim
        self.heads = heads

    def build(self, input_shape: tf.TensorShape) -> None:
        self.query, self.key = (self._weight(name, "glorot_uniform") for name in ("query", "key"))
        self.value, self.output_projection = (
            self._weight(name, "identity") for name in ("value", "output")
        )
        super().build(input_shape)

    def _weight(self, name: str, initializer: str) -> tf.Variable:
        return self.add_weight(
            f"{self.name}/{name}", shape=(self.dim, self.dim), initializer=initializer
        )

    def _split_heads(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        projected = tf.matmul(x, weights)
        shape = tf.shape(projected)
        return tf.reshape(projected, [shape[0], shape[1], self.heads, self.dim // self.heads])

    def project(self, sequence: tf.Tensor, mask: tf.Tensor) -> Keys:
        """`[B, T, D]` sequence → keys and values."""
        return Keys(
            self._split_heads(sequence, self.key), self._split_heads(sequence, self.value), mask
        )

    def attend(self, queries: tf.Tensor, to: Keys) -> tf.Tensor:
        """`[B, Q, D]` queries → `[B, Q, D]`; zeros where nothing is left by the mask."""
        scale = (self.dim // self.heads) ** -0.5
        heads = masked_attention(
            _heads_first(self._split_heads(queries, self.query) * scale),
            _heads_first(to.keys),
            _heads_first(to.values),
            to.mask,
        )
        merged = tf.reshape(
            _heads_first(heads), tf.concat([tf.shape(queries)[:2], [self.dim]], axis=0)
        )
        return tf.matmul(merged, self.output_projection)

    def call(self, queries: tf.Tensor, sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Queries `[B, Q, D]` over a sequence `[B, T, D]`, mask `[B, T]` → `[B, Q, D]`."""
        return self.attend(queries, self.project(sequence, mask))


def each_pair(keys: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
    """Each key times each query's own kernel: those of a row side by side, one matrix product.

    Args:
      keys: `[B, T, D]`.
      kernels: `[B, Q, D, H]`.

    Returns:
      `[B, T, Q, H]`.
    """
    rows, count, _, _ = tf.unstack(tf.shape(kernels))
    dim, width = kernels.shape[2:]
    side_by_side = tf.reshape(tf.transpose(kernels, [0, 2, 1, 3]), [rows, dim, count * width])
    return tf.reshape(tf.matmul(keys, side_by_side), [rows, tf.shape(keys)[1], count, width])


class ActivationUnit(tf_keras.layers.Layer):
    """DIN's attention: a weight from an MLP on each pair, summed without a softmax.

    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, Fig. 2;
    the pair is described by query, key, their difference and their product.

    Args:
      dim: D.
      hidden: widths of the MLP's hidden layers.
      activation: of these.
      last_bias: whether a weight has a bias, which a softmax would not see.
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...] = (36,),
        activation: Literal["dice", "sigmoid", "relu"] = "sigmoid",
        name: str | None = None,
        last_bias: bool = True,
    ) -> None:
        super().__init__(name=name)
        self.dim = dim
        dice = activation == "dice"
        self.unit = tf_keras.Sequential(
            [tf_keras.layers.Dense(width, None if dice else activation) for width in hidden]
            + [tf_keras.layers.Dense(1, use_bias=last_bias)]
        )
        self.dices = [Dice(name=f"{self.name}_dice_{i}") for i in range(len(hidden) if dice else 0)]

    def build(self, input_shape: tf.TensorShape) -> None:
        self.unit.build([None, None, None, 4 * self.dim])
        for dense, dice in zip(self.unit.layers, self.dices, strict=False):
            dice.build([None, None, None, dense.units])
        super().build(input_shape)

    def project(self, sequence: tf.Tensor, mask: tf.Tensor) -> Keys:
        """`[B, T, D]` sequence → itself, as one head."""
        one_head = sequence[:, :, None, :]
        return Keys(one_head, one_head, mask)

    def attend(
        self,
        queries: tf.Tensor,
        to: Keys,
        counted: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """`[B, Q, D]` queries → `[B, Q, D]`, of values; zeros where the mask leaves nothing.

        Args:
          counted: `[B, Q]` bool, queries whose pairs Dice's moments are of; all if None.
        """
        keys = to.keys[:, :, 0]
        pairs = to.mask[:, :, None]
        if counted is not None:
            pairs = pairs & counted[:, None]
        first, *rest = self.unit.layers
        hidden = first.activation(self._first_layer(first, queries, keys))
        pairs = tf.broadcast_to(pairs, tf.shape(hidden)[:-1])
        for number, layer in enumerate(rest):
            if self.dices:
                hidden = self.dices[number](hidden, pairs, training=training)
            hidden = layer(hidden)
        weights = self.weigh(hidden[..., 0], to.mask)
        return tf.matmul(weights, to.values[:, :, 0], transpose_a=True)

    def weigh(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The MLP's output `[B, T, Q]`, mask `[B, T]` → weights of values, 0 where masked."""
        return scores * tf.cast(mask, scores.dtype)[:, :, None]

    def _first_layer(
        self, layer: tf_keras.layers.Dense, queries: tf.Tensor, keys: tf.Tensor
    ) -> tf.Tensor:
        """The first layer's linear part for each pair, `[B, T, Q, H]`, without the pairs.

        concat(q, k, q - k, q k) W = q (W_1 + W_3) + k (W_2 - W_3) + k diag(q) W_4: each
        query has its own `[D, H]` kernel for the keys, and those of a row's queries side by
        side are one matrix product. The pairs, `[B, Q, T, 4 D]`, would be most of a
        step's memory traffic.
        """
        of_query, of_key, of_difference, of_product = tf.split(
            tf.cast(layer.kernel, queries.dtype), 4
        )
        kernels = queries[..., None] * of_product + (of_key - of_difference)
        shared = tf.matmul(queries, of_query + of_difference) + tf.cast(layer.bias, queries.dtype)
        return each_pair(keys, kernels) + shared[:, None]

    def call(self, queries: tf.Tensor, sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Queries `[B, Q, D]` over a sequence `[B, T, D]`, mask `[B, T]` → `[B, Q, D]`."""
        return self.attend(queries, self.project(sequence, mask))


class QueryUnit(ActivationUnit):
    """CLSR's attention, by a query of any width: as DIN's unit, with projected keys and a softmax.

    Zheng et al., "Disentangling Long and Short-Term Interests for Recommendation", WWW 2022, in
    its encoders of either interest.

        s_j = MLP(concat(q, W x_j, q - W x_j, q * W x_j)),  u = sum_j softmax_j(s) x_j

    Args:
      dim: D, of what is attended to.
      query_dim: I, of queries.
      hidden: widths of the MLP's hidden layers, which have ReLU.
    """

    def __init__(
        self, dim: int, query_dim: int, hidden: tuple[int, ...], name: str | None = None
    ) -> None:
        super().__init__(query_dim, hidden, "relu", name, last_bias=False)
        shape = (dim, query_dim)
        self.key = self.add_weight(f"{self.name}/key", shape, initializer="glorot_uniform")

    def project(self, sequence: tf.Tensor, mask: tf.Tensor) -> Keys:
        """`[B, T, D]` sequence → keys `[B, T, 1, I]` and, as values, itself: one head."""
        keys = tf.matmul(sequence, tf.cast(self.key, sequence.dtype))
        return Keys(keys[:, :, None, :], sequence[:, :, None, :], mask)

    def weigh(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The MLP's output `[B, T, Q]`, mask `[B, T]` → its softmax over T, 0 where masked."""
        transposed = masked_softmax(tf.linalg.matrix_transpose(scores), mask[:, None])
        return tf.linalg.matrix_transpose(transposed)
