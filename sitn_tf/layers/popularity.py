"""Candidates' clicks in training → a term of their logits (model.popularity)."""

import numpy as np
import tensorflow as tf
import tf_keras

NOTHING = (1.0, 0.0, 0.0)
"""The a, w and s that leave logits as they are."""


class Popularity(tf_keras.layers.Layer):
    """a logit + w log(1 + clicks) + s, float32 whatever the precision of the model.

    They begin at a = 1, w = s = 0 and no gradient moves them: they are fitted to validation
    requests, whose own clicks are not among those counted (sitn_tf/evaluation/popularity.py).

    Args:
      count: `[V]`, clicks of each item id in the training period.

    Attributes:
      log_clicks: `[V]` float32, log(1 + clicks).
      fit: `[3]` float32, a, w and s.
    """

    def __init__(self, count: np.ndarray) -> None:
        super().__init__(name="popularity", dtype="float32")
        self.log_clicks = tf.constant(np.log1p(count), tf.float32)
        nothing = tf_keras.initializers.Constant(NOTHING)
        self.fit = self.add_weight("popularity/fit", [3], initializer=nothing, trainable=False)

    @property
    def weight(self) -> float:
        """The w of now."""
        return float(self.fit[1])

    def of(self, ids: tf.Tensor) -> tf.Tensor:
        """Item ids `[...]` → what is added to their logits times a, `[...]` float32."""
        return self.fit[1] * tf.gather(self.log_clicks, ids) + self.fit[2]

    def call(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Logits and item ids `[...]` → logits with popularity, `[...]` float32."""
        return self.fit[0] * logits + self.of(ids)
