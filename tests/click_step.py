"""Training steps of a scorer as stage 2 makes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from sitn_tf.data import Batch
from sitn_tf.models.scorer import Scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam
from sitn_tf.training import stage2, steps


def make_click_step(
    strategy: tf.distribute.Strategy, scorer: Scorer, optimizer: tf_keras.optimizers.Optimizer
) -> Callable[..., Any]:
    """Batch → losses by name, as `training.make_step` gives them, not yet traced."""
    return steps.make_step(
        strategy,
        scorer.trainable_variables,
        optimizer,
        lambda batch, _: stage2.scorer_losses(scorer, batch),
    )


def train_by_heart(scorer: Scorer, batch: Batch) -> None:
    """80 steps on one batch: enough for a rule that the scorer can see."""
    optimizer = RowSparseAdam(learning_rate=0.03)
    optimizer.build(scorer.trainable_variables)
    step = steps.traced_once(make_click_step(tf.distribute.get_strategy(), scorer, optimizer))
    for _ in range(80):
        step(batch)


def assert_every_weight_has_a_gradient(scorer: Scorer, batch: Batch) -> None:
    """Of the whole loss of stage 2: one that is there, finite and not zero all over."""
    with tf.GradientTape() as tape:
        loss = stage2.scorer_losses(scorer, batch)["loss"]
    used = scorer.trainable_variables
    for variable, gradient in zip(used, tape.gradient(loss, used), strict=True):
        assert gradient is not None, variable.name
        assert 0 < np.abs(tf.convert_to_tensor(gradient)).max() < np.inf, variable.name
