"""Random numbers of a training step that depend on the step alone, so that none need saving.

Within `at_step`, every draw is a function of (seed, step, replica, part, who draws): a run that
continues from step n draws what it would have drawn without the interruption. TensorFlow's
stateful generators keep their state in op kernels, where no checkpoint finds it. Draws are not
told apart by counting them: Keras' Sequential calls its layers once more whenever it meets a
new shape, so how many came before depends on what the process has seen.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

from sitn_tf.layers import tensor_hashes

_CURRENT: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("step", default=None)
"""`[2]` int64: the run's seed and the step."""


_PART: contextvars.ContextVar[int | None] = contextvars.ContextVar("part", default=None)
"""Which of the parts that a step's rows are computed in, if in several."""


@contextlib.contextmanager
def at_step(seed: int, step: tf.Tensor) -> Iterator[None]:
    """Within it, `uniform` draws the numbers of this step.

    Args:
      seed: of the run.
      step: scalar integer.
    """
    token = _CURRENT.set(tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)]))
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def in_part(number: int) -> Iterator[None]:
    """Within it, `uniform` draws for a part of the step's rows: no other part draws the same."""
    token = _PART.set(number)
    try:
        yield
    finally:
        _PART.reset(token)


def in_a_step() -> bool:
    """Whether a training step is being made."""
    return _CURRENT.get() is not None


def uniform(shape: tf.Tensor, number: int, everywhere: bool = False) -> tf.Tensor:
    """Float32 numbers in [0, 1); outside of a step, TensorFlow's own random ones.

    Args:
      number: of who draws; the same one gets the same numbers throughout a step, or a part of it.
      everywhere: every replica draws the same.
    """
    seed = _CURRENT.get()
    if seed is None:
        return tf.random.uniform(shape)
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None or everywhere else context.replica_id_in_sync_group
    part = _PART.get()
    for told_apart_by in (number, replica) if part is None else (number, replica, part):
        seed = tf.random.experimental.stateless_fold_in(seed, told_apart_by)
    return tf.random.stateless_uniform(shape, seed)


def chosen(keys: tf.Tensor, number: int, share: float) -> tf.Tensor:
    """Whether each key is among a random share of all keys in this step; none is outside of a step.

    By a hash of the key: every replica, and every part of a batch, chooses the same.

    Args:
      keys: int64, any shape.
      number: of who chooses.
    """
    seed_and_step = _CURRENT.get()
    if seed_and_step is None or not share:
        return tf.zeros_like(keys, tf.bool)
    seed, step = tf.unstack(seed_and_step)
    salt = tf.constant(number, tf.int64)
    return tensor_hashes.uniform(tensor_hashes.combine(keys, step, seed, salt)) < share
