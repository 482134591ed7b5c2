"""The multi-layer perceptron of Eq. 8, and what a layer sees of a user and a candidate."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from sitn_tf.layers.dropout import Dropout

Parts = Sequence[tf.Tensor]
"""What a layer sees, cut along its last axis; the other axes broadcast, so that what is the same
for all candidates, `[B, 1, .]` beside `[B, C, .]`, is multiplied once a row."""


def linear(parts: Parts, kernel: tf.Tensor) -> tf.Tensor:
    """concat(parts) W, without the concatenation.

    Args:
      parts: `[..., .]`, I wide together.
      kernel: `[I, O]`.

    Returns:
      `[..., O]`, of the shape that the parts broadcast to.
    """
    rows = tf.split(tf.cast(kernel, parts[0].dtype), [part.shape[-1] for part in parts])
    first, *rest = (tf.tensordot(part, of, 1) for part, of in zip(parts, rows, strict=True))
    return sum(rest, first)


def beside(parts: Parts, candidates: tf.Tensor) -> list[tf.Tensor]:
    """What is the same for all candidates `[B, C, .]`, beside each: `[B, 1, D]` → `[B, C, D]`."""
    count = tf.shape(candidates)[1]
    return [tf.repeat(part, count, axis=1) for part in parts]


def join(users: Sequence[tf.Tensor], candidates: tf.Tensor, products: bool) -> tf.Tensor:
    """Concat of Eq. 8: user representations and candidates, each `[B, C, D]`.

    Args:
      products: also each representation times the candidate, which an MLP of few layers
        learns slowly from the parts.
    """
    matched = [user * candidates for user in users] if products else []
    return tf.concat([*users, candidates, *matched], axis=-1)


def make_mlp(
    widths: tuple[int, ...], outputs: int, dropout: float = 0.0, name: str = "mlp"
) -> tf_keras.Sequential:
    """Hidden ReLU layers with dropout, then a linear layer: `[..., I]` → `[..., outputs]`."""
    layers: list[tf_keras.layers.Layer] = []
    for width in widths:
        layers.append(tf_keras.layers.Dense(width, activation="relu"))
        if dropout:
            layers.append(Dropout(dropout))
    return tf_keras.Sequential([*layers, tf_keras.layers.Dense(outputs)], name=name)
