"""Dice, the activation that follows its data, and the MLP that may have it.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, Section 5.2.
"""

from typing import Literal

import tensorflow as tf
import tf_keras

from sitn_tf.distributed.replicas import sum_over_replicas
from sitn_tf.layers.dropout import Dropout

EPSILON = 1e-8
WINDOW = 100.0
"""Steps over which the statistics of serving run, once there were that many."""


class Dice(tf_keras.layers.Layer):
    """f(s) = p(s) s + (1 - p(s)) alpha s, p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + epsilon)).

    In training E and Var are of the global batch, of the places that count, with their gradient,
    so that replicas see what one would see. In serving they are the running means of these: over
    all steps at first, over about WINDOW later. alpha, one number a channel, starts at 0.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        self.alpha = self._channels("alpha", input_shape[-1], "zeros", trainable=True)
        self.mean = self._channels("mean", input_shape[-1], "zeros")
        self.variance = self._channels("variance", input_shape[-1], "ones")
        self.steps_seen = self._channels("steps_seen", 1, "zeros")
        super().build(input_shape)

    def _channels(
        self, name: str, width: int, initializer: str, trainable: bool = False
    ) -> tf.Variable:
        # Every replica has the same statistics, and none need be rounded to half of the bits.
        whose = "NONE" if trainable else "ONLY_FIRST_REPLICA"
        return self.add_weight(
            f"{self.name}/{name}",
            shape=(width,),
            initializer=initializer,
            trainable=trainable,
            aggregation=tf.VariableAggregation[whose],
            experimental_autocast=False,
        )

    def call(
        self, inputs: tf.Tensor, counted: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """`[..., H]` → `[..., H]`.

        Args:
          counted: `[...]` bool, what moments are taken over in training; all if None.
        """
        values = tf.cast(inputs, tf.float32)
        mean, variance = self.mean, self.variance
        if training:
            mean, variance, count = global_moments(values, counted)
            self._remember(mean, variance, count)
        p = tf.sigmoid((values - mean) * tf.math.rsqrt(variance + EPSILON))
        return tf.cast(values * (self.alpha + p * (1.0 - self.alpha)), inputs.dtype)

    def _remember(self, mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor) -> None:
        """Moves the running means, unless nothing counted."""
        some = tf.cast(count > 0, tf.float32)
        steps = tf.minimum(self.steps_seen + some, WINDOW)
        share = tf.math.divide_no_nan(some, steps)
        for running, value in ((self.mean, mean), (self.variance, variance)):
            running.assign(running + share * (value - running))
        self.steps_seen.assign(steps)


def global_moments(
    values: tf.Tensor, counted: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and variance of each channel over the global batch, with their gradient.

    Args:
      values: `[..., H]` float32, of this replica's rows.
      counted: `[...]` bool; all if None.

    Returns:
      `[H]`, `[H]`, and scalar how many counted; zeros where nothing does.
    """
    width = values.shape[-1]
    rows = tf.reshape(values, [-1, width])
    weights = tf.ones_like(rows[:, 0])
    if counted is not None:
        weights = tf.cast(tf.reshape(counted, [-1]), tf.float32)

    def total(of: tf.Tensor) -> tf.Tensor:
        return sum_over_replicas(tf.matmul(weights[None], of)[0])

    count = tf.stop_gradient(sum_over_replicas(tf.reduce_sum(weights)))
    mean = tf.math.divide_no_nan(total(rows), count)
    # Around the mean: the mean of squares less the square of the mean would lose its digits.
    return mean, tf.math.divide_no_nan(total(tf.square(rows - mean)), count), count


class DiceMlp(tf_keras.layers.Layer):
    """`layers.mlp.make_mlp` with Dice between its layers, if that is its activation.

    Args:
      widths: of the hidden layers.
      outputs: width of the linear layer behind them.
      activation: of the hidden layers.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        outputs: int,
        activation: Literal["dice", "relu"] = "dice",
        dropout: float = 0.0,
        name: str = "mlp",
    ) -> None:
        super().__init__(name=name)
        dice = activation == "dice"
        self.hidden = [
            tf_keras.layers.Dense(width, activation=None if dice else activation)
            for width in widths
        ]
        self.dices = [Dice(name=f"{name}_dice_{i}") for i in range(len(widths))] if dice else []
        self.dropouts = [Dropout(dropout) for _ in widths] if dropout else []
        self.last = tf_keras.layers.Dense(outputs)

    def call(
        self, inputs: tf.Tensor, counted: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """`[..., I]` → `[..., outputs]`.

        Args:
          counted: `[...]` bool, see Dice.
        """
        values = inputs
        for number, layer in enumerate(self.hidden):
            values = layer(values)
            if self.dices:
                values = self.dices[number](values, counted, training=training)
            if self.dropouts:
                values = self.dropouts[number](values, training=training)
        return self.last(values)
