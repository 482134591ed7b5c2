"""Attention of a candidate over a history that also knows the user, maybe across domains (MiNet).

Ouyang et al., "MiNet: Mixed Interest Network for Cross-Domain Click-Through Rate Prediction",
CIKM 2020.
"""

import tensorflow as tf
import tf_keras

from sitn_tf.layers.attention import each_pair, masked_softmax
from sitn_tf.layers.mlp import Parts, linear


class ItemAttention(tf_keras.layers.Layer):
    """The item-level attention: a softmax over a history's items of a network's scores.

        score_i = h^T ReLU(W [p || q || r_i || M r_i * q])

    for the user p, the candidate q and the history's items r; without M where they are of the
    candidate's domain.

    Args:
      dim: D, of items.
      user: width of p; may be 0.
      hidden: H, of the scores' network.
      transfer: whether there is M.
    """

    def __init__(self, dim: int, user: int, hidden: int, transfer: bool, name: str) -> None:
        super().__init__(name=name)
        self.sizes = [user, dim, dim, dim]
        self.hidden = hidden
        self.transfer = transfer

    def build(self, input_shape: tf.TensorShape) -> None:
        dim = self.sizes[-1]
        self.kernel = self.add_weight(f"{self.name}/kernel", (sum(self.sizes), self.hidden))
        self.scores = self.add_weight(f"{self.name}/scores", (self.hidden, 1))
        if self.transfer:
            self.transfer_matrix = self.add_weight(f"{self.name}/transfer", (dim, dim))
        super().build(input_shape)

    def attend(
        self, user: Parts, queries: tf.Tensor, items: tf.Tensor, mask: tf.Tensor
    ) -> tf.Tensor:
        """What each candidate finds in a history; zeros where it has nothing.

        Args:
          user: p, cut into parts of `[B, 1, .]`; may be empty.
          queries: `[B, C, D]`.
          items: `[B, T, D]`.
          mask: `[B, T]` bool, True for real items.

        Returns:
          `[B, C, D]`.
        """
        kernel = tf.cast(self.kernel, items.dtype)
        product = kernel[-self.sizes[-1] :]
        moved = linear([items], self.transfer_matrix) if self.transfer else items
        pairs = each_pair(moved, queries[..., None] * product)
        apart = [*(part[:, None] for part in (*user, queries)), items[:, :, None]]
        hidden = tf.nn.relu(pairs + linear(apart, kernel[: -self.sizes[-1]]))
        logits = tf.transpose(linear([hidden], self.scores)[..., 0], [0, 2, 1])
        return tf.matmul(masked_softmax(logits, mask[:, None]), items)
