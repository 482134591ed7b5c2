"""One training step of a scorer on Eq. 9 alone."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from sitn_tf.models.scorer import Scorer
from sitn_tf.training import stage2, train_loop


def make_click_step(
    strategy: tf.distribute.Strategy, scorer: Scorer, optimizer: tf_keras.optimizers.Optimizer
) -> Callable[..., Any]:
    """Batch → losses by name, as `training.make_step` gives them, not yet traced."""
    return train_loop.make_step(
        strategy,
        scorer.trainable_variables,
        optimizer,
        lambda batch, _: stage2.scorer_losses(scorer, batch),
    )
