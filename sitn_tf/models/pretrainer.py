"""Stage 1 of SITN: both histories of each user → the contrastive loss (Eq. 1-7)."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch, has_both_histories, user_hash
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.augmentation import Draw, crop, hide_items, shuffle
from sitn_tf.layers.contrast import (
    Instances,
    InstanceToCluster,
    InstanceToInstance,
    gather_instances,
)
from sitn_tf.layers.minhash import minhash
from sitn_tf.layers.precision import layers_in
from sitn_tf.models.domain import DomainEncoder
from sitn_tf.optimizers.clipping import Gradient
from sitn_tf.training.gradient_cache import cached_gradients


class Stage1Loss(NamedTuple):
    """A replica's share of the loss, and of each part: summed over replicas, the whole."""

    total: tf.Tensor
    i2i: tf.Tensor
    i2c: tf.Tensor


class Users(NamedTuple):
    """A replica's users, ready to be encoded.

    Attributes:
      histories: `[B, T]` int64 each, augmented, by feature name.
      user: `[B]` int64, a hash of the user's id.
      valid: `[B]` bool, whether both histories have items.
      signature: `[B, S]` MinHash of both histories, or None where likeness plays no part.
    """

    histories: Batch
    user: tf.Tensor
    valid: tf.Tensor
    signature: tf.Tensor | None


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
        with layers_in(config.model.precision):
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

        float32 whatever the precision of the encoders. With cosine similarity the instances
        are unit vectors; an empty history gives zeros.
        """
        return (
            self.source.instance(inputs[schema.SOURCE_HISTORY.name], self._unit, training),
            self.target.instance(inputs[schema.TARGET_HISTORY.name], self._unit, training),
        )

    @property
    def _unit(self) -> bool:
        return self.config.contrast.similarity == "cosine"

    def prepare(self, inputs: Batch, step: tf.Tensor, training: bool = True) -> Users:
        """A replica's part of a batch of schema.STAGE1_FEATURES → its users, augmented.

        Args:
          step: scalar int64, on which the augmentation depends.
        """
        settings = self.config.stage1
        user = user_hash(inputs)
        histories = {f.name: inputs[f.name] for f in schema.HISTORY_OF_DOMAIN.values()}
        signature = minhash(histories) if self.config.contrast.alike < 1.0 else None
        if training:
            draw = Draw(user, step, self.config.seed)
            for name, history in histories.items():
                history = crop(history, draw, settings.item_crop)
                history = shuffle(history, draw, settings.item_shuffle)
                histories[name] = hide_items(history, draw, settings.item_mask)
        return Users(histories, user, has_both_histories(histories), signature)

    def loss(self, inputs: Batch, step: tf.Tensor, training: bool = True) -> Stage1Loss:
        """L_ssl = w_i2i L_i2i + w_i2c L_i2c over the global batch, this replica's share.

        Args:
          inputs: a replica's part of a batch of schema.STAGE1_FEATURES.
          step: scalar int64, on which the augmentation and the start of i2c depend.
        """
        users = self.prepare(inputs, step, training)
        return self.contrast(self(users.histories, training=training), users, step)

    def cached_gradients(
        self, inputs: Batch, step: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> tuple[Stage1Loss, list[Gradient | None]]:
        """The loss and its gradients, the users encoded in `stage1.micro_batches` parts.

        The same numbers as a tape over `loss`, in the memory of one part.
        """
        users = self.prepare(inputs, step)
        return cached_gradients(
            lambda histories: self(histories, training=True),
            lambda encoded: self.contrast(encoded, users, step),
            users.histories,
            self.config.stage1.micro_batches,
            variables,
        )

    def contrast(self, encoded: Sequence[tf.Tensor], users: Users, step: tf.Tensor) -> Stage1Loss:
        """Instances p^s and p^t `[B, D]` of a replica's users → its share of the loss."""
        instances = gather_instances(encoded, users.user, users.valid, users.signature)
        return self._reduce(instances, users.valid, step)

    def _reduce(self, instances: Instances, valid: tf.Tensor, step: tf.Tensor) -> Stage1Loss:
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
        joined = tf.cast(step >= self.config.stage1.i2c_after, i2c.dtype)
        total = contrast.i2i_weight * i2i + contrast.i2c_weight * joined * i2c
        return Stage1Loss(total, i2i, i2c)
