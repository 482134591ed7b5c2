"""Dropout whose masks follow from the training step (sitn_tf/layers/randomness.py)."""

from typing import Any

import tensorflow as tf
import tf_keras

from sitn_tf.layers import randomness


class Dropout(tf_keras.layers.Layer):
    """Zeroes elements with probability `rate` in training and scales the others by 1 / (1 - rate).

    Keras' own layer keeps its random state where no checkpoint finds it, so that a continued
    run would draw other masks than an uninterrupted one.

    Args:
      rate: in [0, 1).

    Attributes:
      number: tells the masks of a model's layers apart (`number_layers`).
    """

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} is not in [0, 1)")
        self.rate = rate
        self.number = 0

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Any shape → the same shape."""
        if not training or not self.rate:
            return tf.identity(inputs)
        kept = randomness.uniform(tf.shape(inputs), self.number) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate}


def number_layers(model: tf_keras.Model) -> None:
    """Gives each dropout layer of a model a number of its own, the same in every process."""
    layers = [part for part in model.submodules if isinstance(part, Dropout)]
    for number, layer in enumerate(layers):
        layer.number = number
