"""Stage 1's losses as Keras layers: Eq. 3-4 and Eq. 7, over the global batch."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf import losses
from sitn_tf.distributed.replicas import gather_rows
from sitn_tf.layers.prototypes import ClusterEncoder
from sitn_tf.sections import ContrastConfig


class Instances(NamedTuple):
    """The instances of a global batch, and which of them are this replica's.

    Attributes:
      source: p^s, `[N, D]`.
      target: p^t, `[N, D]`.
      user: `[N]` int64, equal for rows of the same user.
      valid: `[N]` bool, False for users without both histories; they take no part.
      own: `[n]` int32, rows of this replica.
    """

    source: tf.Tensor
    target: tf.Tensor
    user: tf.Tensor
    valid: tf.Tensor
    own: tf.Tensor

    def other_users(self) -> tf.Tensor:
        """`[n, N]` bool: rows that may be negatives of an own row."""
        own_user = tf.gather(self.user, self.own)
        return (own_user[:, None] != self.user[None, :]) & self.valid[None, :]


def gather_instances(encoded: Sequence[tf.Tensor], user: tf.Tensor, valid: tf.Tensor) -> Instances:
    """What each replica has of its own n rows → the instances of the global batch.

    Args:
      encoded: p^s and p^t, `[n, D]` each.
      user: `[n]` int64.
      valid: `[n]` bool.
    """
    (source, target, users, all_valid), own = gather_rows(
        [*encoded, user, tf.cast(valid, tf.int32)]
    )
    return Instances(source, target, users, all_valid > 0, own)


class InstanceToInstance(tf_keras.layers.Layer):
    """L_i2i = L_i2i^{s2t} + L_i2i^{t2s} of each own row (Eq. 3 and 4).

    float32 whatever the precision of the model: Keras would round instances to that.
    """

    def __init__(self, config: ContrastConfig, name: str | None = None) -> None:
        super().__init__(name=name, dtype="float32")
        self.config = config

    def call(self, instances: Instances) -> tf.Tensor:
        """Returns `[n]`; rows that are not valid carry no meaning."""
        others = instances.other_users()

        def one_way(anchors: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
            own_anchors = tf.gather(anchors, instances.own)
            return losses.info_nce(
                own_anchors, keys, instances.own, self.config.temperature, others
            )

        return one_way(instances.source, instances.target) + one_way(
            instances.target, instances.source
        )


class InstanceToCluster(tf_keras.layers.Layer):
    """e_i2c = e_i2c^{s2t} + e_i2c^{t2s} of each own row, in one interest space (Eq. 5-7).

    Args:
      clusters: K of this granularity.
      dim: D.
      config: the readings of Eq. 5-7.
    """

    def __init__(
        self, clusters: int, dim: int, config: ContrastConfig, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.source = ClusterEncoder(clusters, dim, config, name="source_clusters")
        self.target = ClusterEncoder(clusters, dim, config, name="target_clusters")

    def call(self, instances: Instances) -> tf.Tensor:
        """Returns `[n]`; rows that are not valid carry no meaning."""
        s2t = self._one_way(instances.source, instances.target, self.target, instances)
        t2s = self._one_way(instances.target, instances.source, self.source, instances)
        return s2t + t2s

    def _one_way(
        self, anchors: tf.Tensor, others: tf.Tensor, encoder: ClusterEncoder, instances: Instances
    ) -> tf.Tensor:
        """Instances of one domain against the clusters of the other."""
        own = instances.own
        u = encoder(others, instances.valid)
        q, top = encoder.views(others, u)
        negatives, allowed = u, None
        if self.config.negatives == "views":
            negatives, allowed = q, instances.other_users()
        elif self.config.exclude_own:
            own_clusters = tf.one_hot(tf.gather(top, own), encoder.clusters)
            allowed = tf.reduce_sum(own_clusters, axis=1) == 0.0
        return losses.instance_to_cluster(
            tf.gather(anchors, own), tf.gather(q, own), negatives, self.config.temperature, allowed
        )
