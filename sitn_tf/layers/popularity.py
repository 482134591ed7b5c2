"""Candidates' clicks in training → a term of their logits (model.popularity)."""

import numpy as np
import tensorflow as tf
import tf_keras


class Popularity(tf_keras.layers.Layer):
    """w log(1 + clicks) + s of each item, float32 whatever the precision of the model.

    w and s begin at 0 and no gradient moves them: they are fitted to validation requests, whose
    own clicks are not among those counted (sitn_tf/evaluation/popularity.py).

    Args:
      count: `[V]`, clicks of each item id in the training period.

    Attributes:
      log_clicks: `[V]` float32, log(1 + clicks).
      term: `[2]` float32, w and s.
    """

    def __init__(self, count: np.ndarray) -> None:
        super().__init__(name="popularity", dtype="float32")
        self.log_clicks = tf.constant(np.log1p(count), tf.float32)
        self.term = self.add_weight("term", [2], initializer="zeros", trainable=False)

    @property
    def weight(self) -> float:
        """The w of now."""
        return float(self.term[0])

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Item ids `[...]` → what is added to their logits, `[...]` float32."""
        weight, shift = tf.unstack(self.term)
        return weight * tf.gather(self.log_clicks, ids) + shift
