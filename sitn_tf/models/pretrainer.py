"""Stage 1 of SITN: both histories of each user → the contrastive loss (Eq. 1-7)."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf import losses, schema
from sitn_tf.augmentation import hide_items
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.distribution import gather_rows, global_sum
from sitn_tf.items import ItemTable
from sitn_tf.layers.contrast import Instances, InstanceToCluster, InstanceToInstance
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.models.domain import DomainEncoder


class Stage1Loss(NamedTuple):
    """A replica's share of the loss, and of each part: summed over replicas, the whole."""

    total: tf.Tensor
    i2i: tf.Tensor
    i2c: tf.Tensor


class Pretrainer(tf_keras.Model):
    """Two domain encoders with the losses that pull a user's two instances together.

    Args:
      config: of the model, the contrast and stage 1.
      tables: item tables by domain.
      max_history: longest history in a record.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(name="pretrainer")
        self.config = config
        self.source = DomainEncoder(tables[schema.SOURCE], config.model, max_history)
        self.target = DomainEncoder(tables[schema.TARGET], config.model, max_history)
        contrast = config.contrast
        self.i2i = InstanceToInstance(contrast, name="i2i")
        self.i2c = [
            InstanceToCluster(
                clusters, config.model.embedding_dim, contrast, name=f"i2c_{clusters}"
            )
            for clusters in (contrast.granularities if contrast.i2c_weight else ())
        ]

    def trained_variables(self) -> list[tf.Variable]:
        """What stage 1 changes: not the id embeddings of items known by their side features.

        Stage 1 sees the very clicks that are stage 2's training labels; id embeddings learn
        these by heart, and the scorer that starts from them does worse on later requests.
        """
        kept = {
            id(variable)
            for domain in (self.source, self.target)
            if domain.items.table.features and not self.config.stage1.train_ids
            for variable in domain.items.id_variables
        }
        return [v for v in self.trainable_variables if id(v) not in kept]

    def call(self, inputs: Batch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Histories `[B, S]` and `[B, T]` → instances p^s and p^t, each `[B, D]` (Eq. 2).

        With cosine similarity the instances are unit vectors; an empty history gives zeros.
        """
        source = masked_mean(*self.source(inputs[schema.SOURCE_HISTORY.name], training=training))
        target = masked_mean(*self.target(inputs[schema.TARGET_HISTORY.name], training=training))
        if self.config.contrast.similarity == "cosine":
            return losses.unit(source), losses.unit(target)
        return source, target

    def loss(self, inputs: Batch, step: tf.Tensor, training: bool = True) -> Stage1Loss:
        """L_ssl = w_i2i L_i2i + w_i2c L_i2c over the global batch, this replica's share.

        Args:
          inputs: a replica's part of a batch of schema.STAGE1_FEATURES.
          step: scalar int64, on which the augmentation depends.
        """
        user = tf.strings.to_hash_bucket_fast(inputs[schema.USER_ID.name], 2**62)
        histories = {f.name: inputs[f.name] for f in schema.HISTORY_OF_DOMAIN.values()}
        if training:
            for name, history in histories.items():
                histories[name] = hide_items(
                    history, user, step, self.config.seed, self.config.stage1.item_mask
                )
        valid = tf.logical_and(
            *[tf.reduce_any(history != schema.PAD_ID, axis=1) for history in histories.values()]
        )
        p_source, p_target = self(histories, training=training)
        gathered, own = gather_rows([p_source, p_target, user, tf.cast(valid, tf.int32)])
        instances = Instances(gathered[0], gathered[1], gathered[2], gathered[3] > 0, own)
        return self._reduce(instances, valid)

    def _reduce(self, instances: Instances, valid: tf.Tensor) -> Stage1Loss:
        contrast = self.config.contrast
        weight = tf.cast(valid, instances.source.dtype)
        if contrast.reduction == "mean":
            weight = tf.math.divide_no_nan(weight, global_sum(tf.reduce_sum(weight)))
        i2i = tf.reduce_sum(weight * self.i2i(instances)) if contrast.i2i_weight else 0.0
        spaces = [tf.reduce_sum(weight * space(instances)) for space in self.i2c]
        i2c = tf.add_n(spaces) if spaces else tf.constant(0.0)
        if contrast.reduction == "mean" and spaces:
            i2c /= len(spaces)
        i2i = tf.convert_to_tensor(i2i)
        return Stage1Loss(contrast.i2i_weight * i2i + contrast.i2c_weight * i2c, i2i, i2c)
