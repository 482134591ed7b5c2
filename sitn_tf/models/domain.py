"""A domain's half of the model: items and sequence encoder, shared by both stages."""

import tensorflow as tf
import tf_keras

from sitn_tf import losses, schema
from sitn_tf.config import ModelConfig
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.embedding import ItemEmbedding, masked_mean
from sitn_tf.layers.encoder import SequenceEncoder


class DomainEncoder(tf_keras.layers.Layer):
    """Item embedding and sequence encoder f of one domain: what stage 1 hands to stage 2.

    Args:
      table: the domain's items.
      config: sizes.
      max_history: longest history in a record.
    """

    def __init__(self, table: ItemTable, config: ModelConfig, max_history: int) -> None:
        super().__init__(name=table.domain)
        self.items = ItemEmbedding(table, config)
        self.items.build([None])
        self.sequence = SequenceEncoder(config, max_history, name="encoder")

    def call(self, history: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """`[B, T]` ids → encoded sequence z `[B, T, D]` and its mask `[B, T]`."""
        mask = history != schema.PAD_ID
        return self.sequence(self.items(history), mask, training=training), mask

    def instance(self, history: tf.Tensor, unit: bool, training: bool = False) -> tf.Tensor:
        """`[B, T]` ids → instances p `[B, D]` float32 (Eq. 2), of length 1 if `unit`."""
        encoded, mask = self(history, training=training)
        pooled = masked_mean(tf.cast(encoded, tf.float32), mask)
        return losses.unit(pooled) if unit else pooled
