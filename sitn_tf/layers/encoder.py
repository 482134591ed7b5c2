"""A domain's sequence encoder f of Eq. 2: item vectors → encoded sequence."""

from collections.abc import Iterable

import tensorflow as tf
import tf_keras

from sitn_tf import losses, schema
from sitn_tf.distributed import tables
from sitn_tf.layers import click_ages
from sitn_tf.layers.attention import MultiHeadAttention
from sitn_tf.layers.dropout import Dropout
from sitn_tf.layers.embedding import ItemEmbedding, masked_mean
from sitn_tf.sections import EncoderConfig


class SequenceEncoder(tf_keras.layers.Layer):
    """Self-attention blocks over a history, with learned recency positions and ages of clicks.

    Args:
      config: heads, blocks, and whether there are positions, ages and residuals.
      dim: D.
      max_history: longest history; position 0 is the most recent item.
      dropout: share of the encoded sequence that is dropped in training.
      like: an encoder, of the other domain and called before this, whose weights it has. What is
        dropped is its own: equal masks would tell the contrast which instances are one user's.
    """

    def __init__(
        self,
        config: EncoderConfig,
        dim: int,
        max_history: int,
        dropout: float = 0.0,
        name: str | None = None,
        like: "SequenceEncoder | None" = None,
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.dim = dim
        self.max_history = max_history
        self.like = like
        blocks = range(0 if like else config.blocks)
        self.attentions: list[MultiHeadAttention] = [
            MultiHeadAttention(dim, config.heads, name=f"attention_{block}") for block in blocks
        ]
        self.norms: list[tf_keras.layers.LayerNormalization] = [
            tf_keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{block}")
            for block in (blocks if config.layer_norm else ())
        ]
        if like is not None:
            self.attentions, self.norms = like.attentions, like.norms
        self.dropout = Dropout(dropout)

    def build(self, input_shape: tf.TensorShape) -> None:
        if self.config.positions and self.like is not None:
            self.positions: tf.Variable = self.like.positions
        elif self.config.positions:
            self.positions = self.add_weight(
                "positions",
                shape=(self.max_history, self.dim),
                initializer=tf_keras.initializers.RandomNormal(stddev=0.02),
            )
            tables.mark(self.positions, slots="by_element")
        if self.config.ages and self.like is not None:
            self.ages: tf.Variable = self.like.ages
        elif self.config.ages:
            self.ages = self.add_weight(
                "ages", shape=(click_ages.POINTS, self.dim), initializer="zeros"
            )
        super().build(input_shape)

    def call(
        self,
        sequence: tf.Tensor,
        mask: tf.Tensor,
        ages: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """`[B, T, D]` oldest first, mask `[B, T]` → `[B, T, D]`; masked rows carry no meaning.

        Args:
          ages: `[B, T]` int64 seconds (layers/click_ages.py), read and needed with `encoder.ages`.
        """
        encoded = sequence
        if self.config.positions:
            encoded += tf.nn.embedding_lookup(self.positions, recency(mask, self.max_history))
        if self.config.ages:
            encoded += tf.matmul(tf.cast(click_ages.shares(ages), encoded.dtype), self.ages)
        for block, attention in enumerate(self.attentions):
            attended = attention(encoded, encoded, mask)
            encoded = encoded + attended if self.config.residual else attended
            if self.config.layer_norm:
                encoded = self.norms[block](encoded)
        return self.dropout(encoded, training=training)


def make_encoders(
    config: EncoderConfig, dim: int, max_history: int, dropout: float, domains: Iterable[str]
) -> dict[str, SequenceEncoder]:
    """Sequence encoders by domain; with `encoder.shared` all have the weights of the first."""
    encoders: dict[str, SequenceEncoder] = {}
    for domain in domains:
        first = next(iter(encoders.values()), None) if config.shared else None
        name = f"{'shared' if config.shared and first is None else domain}_encoder"
        encoders[domain] = SequenceEncoder(config, dim, max_history, dropout, name, first)
    return encoders


def instance(
    items: ItemEmbedding,
    encoder: SequenceEncoder,
    history: tf.Tensor,
    unit: bool,
    training: bool = False,
    times: tf.Tensor | None = None,
) -> tf.Tensor:
    """`[B, T]` ids of a domain → instances p `[B, D]` float32 (Eq. 2), of length 1 if `unit`.

    An empty history gives zeros.

    Args:
      times: `[B, T]` int64, of the clicks; needed with `encoder.ages`, whose ages are before the
        newest click of the history here: an instance has no request.
    """
    mask = history != schema.PAD_ID
    ages = None if times is None else click_ages.before_newest(times, mask)
    return pool(encoder(items(history), mask, ages, training=training), mask, unit)


def pool(encoded: tf.Tensor, mask: tf.Tensor, unit: bool) -> tf.Tensor:
    """Encoded sequences `[B, T, D]`, mask `[B, T]` → `instance` of each, `[B, D]` float32."""
    pooled = masked_mean(tf.cast(encoded, tf.float32), mask)
    return losses.unit(pooled) if unit else pooled


def recency(mask: tf.Tensor, max_history: int) -> tf.Tensor:
    """How many real items follow each position: 0 for the most recent, `[B, T]` int32."""
    real = tf.cast(mask, tf.int32)
    following = tf.cumsum(real, axis=1, reverse=True, exclusive=True)
    return tf.minimum(following, max_history - 1)
