"""The multi-layer perceptron of Eq. 8, and what it sees of a user and a candidate."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from sitn_tf.layers.dropout import Dropout


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
