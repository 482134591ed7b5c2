"""The instance-to-cluster encoder (Eq. 5 and 6) of one domain and one granularity."""

import tensorflow as tf
import tf_keras

from sitn_tf import losses
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.sections import ContrastConfig


class ClusterEncoder(tf_keras.layers.Layer):
    """Interest clusters C of a domain, and what they make of a batch of instances.

    Args:
      clusters: K.
      dim: D.
      config: the readings of Eq. 5 and 6.
    """

    def __init__(
        self, clusters: int, dim: int, config: ContrastConfig, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.clusters = clusters
        self.dim = dim
        self.config = config
        self.mlp = make_mlp((dim,), dim, name="views") if config.view == "mlp" else None

    def build(self, input_shape: tf.TensorShape) -> None:
        initializer = (
            tf_keras.initializers.RandomNormal(stddev=self.dim**-0.5)
            if self.config.cluster_init == "normal"
            else spread_directions
        )
        self.c = self.add_weight("c", shape=(self.clusters, self.dim), initializer=initializer)
        if self.mlp is not None:
            self.mlp.build([None, self.config.top_k * self.dim])
        super().build(input_shape)

    def assign(self, p: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Instances `[N, D]`, valid `[N]` → assignment pi `[N, K]` (Eq. 5, second line)."""
        c = losses.unit(self.c) if self.config.similarity == "cosine" else self.c
        temperature = self.config.assignment_temperature
        if self.config.assignment == "balanced":
            pi = losses.balanced_assignment(p, c, valid, temperature)
        else:
            pi = losses.cluster_assignment(p, c, temperature)
        return tf.stop_gradient(pi) if self.config.stop_cluster_gradient else pi

    def call(self, p: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Instances `[N, D]` of the global batch, valid `[N]` → new clusters u `[K, D]`."""
        return losses.new_clusters(self.assign(p, valid), p, valid, self.config.cluster_norm)

    def views(self, p: tf.Tensor, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Multi-view clusters of instances (Eq. 6).

        Args:
          p: `[n, D]`.
          u: `[K, D]`.

        Returns:
          q `[n, D]`, and the top-k rows of u that made it, `[n, k]`.
        """
        top = losses.top_clusters(p, u, self.config.top_k)
        chosen = tf.gather(u, top)
        if self.mlp is not None:
            q = self.mlp(tf.reshape(chosen, [-1, self.config.top_k * self.dim]))
        else:
            q = tf.reduce_mean(chosen, axis=1)
        return (losses.unit(q) if self.config.similarity == "cosine" else q), top


def spread_directions(shape: tf.TensorShape, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Unit rows in blocks of D mutually orthogonal ones: clusters that start far apart."""
    clusters, dim = int(shape[0]), int(shape[1])
    blocks = [
        tf.linalg.qr(tf.random.normal([dim, dim], dtype=dtype)).q
        for _ in range(-(-clusters // dim))
    ]
    return tf.concat(blocks, axis=0)[:clusters]
