"""One training step of a scorer on Eq. 9 alone."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from sitn_tf import stage2, training
from sitn_tf.models.scorer import Scorer


def make_click_step(
    strategy: tf.distribute.Strategy, scorer: Scorer, optimizer: tf_keras.optimizers.Optimizer
) -> Callable[..., Any]:
    """Batch → losses by name, as `training.make_step` gives them, not yet traced."""
    return training.make_step(
        strategy,
        scorer.trainable_variables,
        optimizer,
        lambda batch, _: {"loss": stage2.mean_click_loss(scorer, batch)},
    )
