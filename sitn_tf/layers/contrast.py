"""Stage 1's losses as Keras layers: Eq. 3-4 and Eq. 7, over the global batch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from sitn_tf import losses, schema
from sitn_tf.config import ContrastConfig
from sitn_tf.distributed.replicas import gather_rows
from sitn_tf.evaluation.collapse import Clusters
from sitn_tf.layers.minhash import likeness
from sitn_tf.layers.prototypes import ClusterEncoder


class Instances(NamedTuple):
    """The instances of a global batch, and which of them are this replica's.

    Attributes:
      source: p^s, `[N, D]`.
      target: p^t, `[N, D]`.
      user: `[N]` int64, equal for rows of the same user.
      valid: `[N]` bool, False for users without both histories; they take no part.
      own: `[n]` int32, rows of this replica.
      signature: `[N, S]` int64 of the histories (layers/minhash.py), or None.
    """

    source: tf.Tensor
    target: tf.Tensor
    user: tf.Tensor
    valid: tf.Tensor
    own: tf.Tensor
    signature: tf.Tensor | None = None

    def other_users(self, alike: float = 1.0) -> tf.Tensor:
        """`[n, N]` bool: rows that may be negatives of an own row.

        Args:
          alike: users whose histories are more alike than this may not.
        """
        own_user = tf.gather(self.user, self.own)
        others = (own_user[:, None] != self.user[None, :]) & self.valid[None, :]
        if self.signature is None:
            return others
        return others & (likeness(tf.gather(self.signature, self.own), self.signature) <= alike)


def gather_instances(
    encoded: Sequence[tf.Tensor],
    user: tf.Tensor,
    valid: tf.Tensor,
    signature: tf.Tensor | None = None,
) -> Instances:
    """What each replica has of its own n rows → the instances of the global batch.

    Args:
      encoded: p^s and p^t, `[n, D]` each.
      user: `[n]` int64.
      valid: `[n]` bool.
      signature: `[n, S]` int64, or None.
    """
    columns = [*encoded, user, tf.cast(valid, tf.int32)]
    if signature is not None:
        columns.append(signature)
    (source, target, users, all_valid, *rest), own = gather_rows(columns)
    return Instances(source, target, users, all_valid > 0, own, rest[0] if rest else None)


class InstanceToInstance(tf_keras.layers.Layer):
    """L_i2i = L_i2i^{s2t} + L_i2i^{t2s} of each own row (Eq. 3 and 4)."""

    def __init__(self, config: ContrastConfig, name: str | None = None) -> None:
        super().__init__(name=name)
        self.config = config

    def call(self, instances: Instances) -> tf.Tensor:
        """Returns `[n]`; rows that are not valid carry no meaning."""
        others = instances.other_users(self.config.alike)

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

    def clusters_of(self, instances: Mapping[str, np.ndarray]) -> Clusters:
        """The interest space among n users, from their `[n, D]` instances by domain."""
        encoders = {schema.SOURCE: self.source, schema.TARGET: self.target}
        every = tf.ones([len(instances[schema.SOURCE])], tf.bool)
        return Clusters(
            assignment={d: e.assign(instances[d]).numpy() for d, e in encoders.items()},
            new={d: e(instances[d], every).numpy() for d, e in encoders.items()},
            instances=instances,
            top_k=self.config.top_k,
        )

    def _one_way(
        self, anchors: tf.Tensor, others: tf.Tensor, encoder: ClusterEncoder, instances: Instances
    ) -> tf.Tensor:
        """Instances of one domain against the clusters of the other."""
        own = instances.own
        u = encoder(others, instances.valid)
        q, top = encoder.views(others, u)
        if self.config.negatives == "views":
            negatives, allowed = q, instances.other_users(self.config.alike)
        else:
            negatives, allowed = u, self._not_own_clusters(tf.gather(top, own), encoder.clusters)
        return losses.instance_to_cluster(
            tf.gather(anchors, own), tf.gather(q, own), negatives, self.config.temperature, allowed
        )

    def _not_own_clusters(self, top: tf.Tensor, clusters: int) -> tf.Tensor | None:
        """`[n, k]` own clusters → `[n, K]` bool, or None where all clusters are negatives."""
        if not self.config.exclude_own:
            return None
        return tf.reduce_sum(tf.one_hot(top, clusters), axis=1) == 0.0
