"""Stage 1 of SITN: both histories of each user → the contrastive loss (Eq. 1-7)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch, has_both_histories, user_hash
from sitn_tf.distributed import parameter_servers
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.augmentation import Draw, augment
from sitn_tf.layers.contrast import (
    InstanceToCluster,
    InstanceToInstance,
    gather_instances,
)
from sitn_tf.layers.embedding import embed_items
from sitn_tf.layers.encoder import instance, make_encoders
from sitn_tf.layers.precision import layers_in
from sitn_tf.sections import Stage1Config


class Users(NamedTuple):
    """A replica's users, ready to be encoded.

    Attributes:
      histories: ids, and times where the model reads them, `[B, T]` int64 each, augmented, by
        feature name.
      user: `[B]` int64, a hash of the user's id.
      valid: `[B]` bool, whether both histories have items.
    """

    histories: Batch
    user: tf.Tensor
    valid: tf.Tensor


def learned_ids(table: ItemTable, settings: Stage1Config) -> Literal["all", "undescribed", "none"]:
    """Whose id embeddings stage 1 trains in a domain.

    Stage 1 sees the very clicks that are stage 2's training labels; id embeddings learn these by
    heart, and the scorer that starts from them does worse on later requests. So without
    `stage1.train_ids` only items of which nothing else is known have theirs trained.
    """
    if settings.train_ids or not table.side_features:
        return "all"
    return "none" if table.described[schema.FIRST_ID :].all() else "undescribed"


class Pretrainer(tf_keras.Model):
    """Items and sequence encoders of two domains, and losses that pull a user's instances together.

    Args:
      config: of the model, the contrast and stage 1.
      tables: item tables by domain.
      max_history: longest history in a record.

    Attributes:
      hands_over: names of the attributes, each a layer by domain, that a scorer may start from
        (Scorer.takes_over), and the settings (sections or fields) that both must agree on.
    """

    hands_over: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "items": ("model.embedding_dim", "items"),
        "sequences": ("model.embedding_dim", "encoder"),
    }

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(name="pretrainer")
        self.config = config
        contrast, dim = config.contrast, config.model.embedding_dim
        with layers_in(config.model.precision):
            spare_ids = [d for d, t in tables.items() if learned_ids(t, config.stage1) != "all"]
            self.items = embed_items(tables, config.items, dim, schema.DOMAINS, spare_ids)
            self.sequences = make_encoders(
                config.encoder, dim, max_history, config.model.dropout, schema.DOMAINS
            )
        self.i2i = InstanceToInstance(contrast, name="i2i")
        self.i2c = [
            InstanceToCluster(clusters, dim, contrast, name=f"i2c_{clusters}")
            for clusters in (contrast.granularities if contrast.i2c_weight else ())
        ]

    def trained_variables(self) -> list[tf.Variable]:
        """What stage 1 changes: tables of ids only where it trains some of them."""
        kept = {
            id(variable)
            for items in self.items.values()
            if learned_ids(items.table, self.config.stage1) == "none"
            for variable in items.id_variables
        }
        return [v for v in self.trainable_variables if id(v) not in kept]

    def call(self, inputs: Batch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Histories `[B, S]` and `[B, T]` of ids → instances p^s and p^t, each `[B, D]` (Eq. 2).

        With `encoder.ages` the times of the clicks stand beside the ids.

        float32 whatever the precision of the encoders. With cosine similarity the instances
        are unit vectors; an empty history gives zeros.
        """
        unit = self.config.contrast.similarity == "cosine"
        source, target = (
            instance(
                self.items[domain],
                self.sequences[domain],
                inputs[history.name],
                unit,
                training,
                self._times(domain, inputs),
            )
            for domain, history in schema.HISTORY_OF_DOMAIN.items()
        )
        return source, target

    def _times(self, domain: str, inputs: Batch) -> tf.Tensor | None:
        return inputs[schema.TIMES_OF_DOMAIN[domain].name] if self.config.encoder.ages else None

    def make_variables(self) -> None:
        """Makes all variables, as far as the constructor has not."""
        features = (*schema.HISTORY_OF_DOMAIN.values(), *schema.TIMES_OF_DOMAIN.values())
        one_user = {feature.name: tf.zeros([1, 1], tf.int64) for feature in features}
        parameter_servers.make_variables(self, one_user)
        for space in self.i2c:
            for encoder in (space.source, space.target):
                encoder(tf.zeros([1, self.config.model.embedding_dim]), tf.zeros([1], tf.bool))
            if self.config.contrast.cluster_init == "shared":
                space.target.c.assign(space.source.c)

    def prepare(self, inputs: Batch, step: tf.Tensor, training: bool = True) -> Users:
        """A replica's part of a batch of schema.STAGE1_FEATURES → its users, augmented.

        Args:
          step: scalar int64, on which the augmentation depends.
        """
        settings = self.config.stage1
        user = user_hash(inputs)
        histories = {}
        for number, (domain, history) in enumerate(schema.HISTORY_OF_DOMAIN.items()):
            ids, times = inputs[history.name], self._times(domain, inputs)
            if training:
                draw = Draw(user, step, self.config.seed, number)
                ids, times = augment(ids, times, draw, settings)
            histories[history.name] = ids
            if times is not None:
                histories[schema.TIMES_OF_DOMAIN[domain].name] = times
        return Users(histories, user, has_both_histories(histories))

    def loss(self, inputs: Batch, step: tf.Tensor, training: bool = True) -> dict[str, tf.Tensor]:
        """L_ssl = w_i2i L_i2i + w_i2c L_i2c over the global batch: "loss", "i2i" and "i2c".

        Each is this replica's share: summed over the replicas, the whole.

        Args:
          inputs: a replica's part of a batch of schema.STAGE1_FEATURES.
          step: scalar int64, on which the augmentation and the start of i2c depend.
        """
        users = self.prepare(inputs, step, training)
        return self.contrast(self(users.histories, training=training), users, step)

    def contrast(
        self, encoded: Sequence[tf.Tensor], users: Users, step: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Instances p^s and p^t `[B, D]` of a replica's users → its share of the loss, by part."""
        contrast = self.config.contrast
        instances = gather_instances(encoded, users.user, users.valid)
        weight = tf.cast(users.valid, instances.source.dtype)
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
        return {"loss": total, "i2i": i2i, "i2c": i2c}
