"""Random numbers of a training step that depend on the step alone, so that none need saving.

Within `at_step`, every draw is a function of (seed, step, replica, how many draws came before
it in the step): a run that continues from step n draws what it would have drawn without the
interruption. TensorFlow's stateful generators keep their state in op kernels, where no
checkpoint finds it.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import tensorflow as tf


@dataclasses.dataclass
class _Step:
    seed: int
    step: tf.Tensor
    draws: int = 0


_CURRENT: contextvars.ContextVar[_Step | None] = contextvars.ContextVar("step", default=None)


@contextlib.contextmanager
def at_step(seed: int, step: tf.Tensor) -> Iterator[None]:
    """Within it, `uniform` draws the numbers of this step.

    Args:
      seed: of the run.
      step: scalar integer.
    """
    token = _CURRENT.set(_Step(seed, tf.cast(step, tf.int64)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def uniform(shape: tf.Tensor) -> tf.Tensor:
    """Float32 numbers in [0, 1); outside of a step, TensorFlow's own random ones."""
    current = _CURRENT.get()
    if current is None:
        return tf.random.uniform(shape)
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None else context.replica_id_in_sync_group
    draw = current.draws
    current.draws += 1
    seed = tf.random.experimental.stateless_fold_in(
        tf.stack([tf.constant(current.seed, tf.int64), current.step]), 1000 * draw + replica
    )
    return tf.random.stateless_uniform(shape, seed)
