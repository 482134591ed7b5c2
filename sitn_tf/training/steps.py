"""One training step: a batch → its losses and changed weights, here or on workers."""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from sitn_tf.data import Batch
from sitn_tf.distributed.parameter_servers import Workers, has_servers
from sitn_tf.distributed.replicas import Gradient, split_rows, sum_gradients
from sitn_tf.layers import randomness
from sitn_tf.optimizers import clipping

GRADIENT_NORM = "gradient_norm"

Losses = dict[str, tf.Tensor]
Gradients = Callable[[Batch, tf.Tensor], tuple[Losses, list[Gradient | None]]]

Values = Callable[[], dict[str, float]]
"""Waits for a step and tells its losses."""


def make_step(
    strategy: tf.distribute.Strategy,
    variables: Sequence[tf.Variable],
    optimizer: tf_keras.optimizers.Optimizer,
    losses: Callable[[Batch, tf.Tensor], Losses],
    gradients_of: Gradients | None = None,
    clip_norm: float = 0.0,
    loss_scale: float = 1.0,
    seed: int = 0,
) -> Callable[[Batch], Losses]:
    """One training step over all replicas, not traced yet.

    Args:
      gradients_of: see train_loop.Task.gradients.
      clip_norm: bound of the gradients' global norm; 0 for none.
      loss_scale: keeps small gradients of float16 layers above zero on their way.
      seed: of what is random in a step.

    Returns:
      Distributed batch → losses summed over replicas, and the "gradient_norm" before clipping.
    """

    def on_replica(batch: Batch) -> Losses:
        with randomness.at_step(seed, optimizer.iterations):
            if gradients_of is not None:
                parts, gradients = gradients_of(batch, optimizer.iterations)
            else:
                with tf.GradientTape() as tape:
                    parts = losses(batch, optimizer.iterations)
                    scaled = parts["loss"] * loss_scale
                gradients = clipping.scale(tape.gradient(scaled, variables), 1.0 / loss_scale)
        gradients = clipping.with_distinct_rows(sum_gradients(gradients))
        norm = clipping.global_norm(gradients)
        optimizer.apply_distinct(clipping.clip(gradients, norm, clip_norm), variables)
        return parts | {GRADIENT_NORM: norm}

    def step(batch: Batch) -> Losses:
        parts = strategy.run(on_replica, args=(batch,))
        # Every replica has the norm of the whole gradient.
        whole = {GRADIENT_NORM: tf.distribute.ReduceOp.MEAN}
        return {
            name: strategy.reduce(whole.get(name, tf.distribute.ReduceOp.SUM), part, axis=None)
            for name, part in parts.items()
        }

    return step


def traced_once(step: Callable[[Batch], Losses]) -> Callable[[Batch], Losses]:
    """A graph of a step, traced for batches of any size by the first one.

    A graph for the first batch's very shapes would be optimised otherwise than one for any
    shapes and round otherwise, and a continued run meets another batch first.
    """
    graph: tf.types.experimental.PolymorphicFunction | None = None

    def traced(batch: Batch) -> Losses:
        nonlocal graph
        if graph is None:
            graph = _graph(step, batch)
        return graph(batch)

    return traced


def _graph(
    step: Callable[[Batch], Losses], batch: Batch
) -> tf.types.experimental.PolymorphicFunction:
    """A step as a graph for batches of any size, with the features of this one.

    No statement of a model depends on a tensor's value, so AutoGraph has nothing to convert, and
    looking for it takes long.
    """
    specs = {name: _of_any_size(tf.type_spec_from_value(x)) for name, x in batch.items()}
    return tf.function(step, input_signature=[specs], autograph=False)


def _of_any_size(spec: tf.TypeSpec) -> tf.TypeSpec:
    if isinstance(spec, tf.TensorSpec):
        return tf.TensorSpec([None] * spec.shape.rank, spec.dtype)
    return type(spec)(*map(_of_any_size, spec._value_specs))


class Here:
    """Runs steps on this process's replicas, or together with other workers, one by one.

    Attributes:
      ahead: how many may be under way while the losses of earlier ones are read.
      at_once: how many may read and change the weights side by side.
    """

    ahead = 0
    at_once = 1

    def __init__(self, strategy: tf.distribute.Strategy, step: Callable[[Batch], Losses]) -> None:
        self._strategy, self._step = strategy, traced_once(step)

    def __call__(self, batch: Batch) -> Values:
        """Begins the step of a global batch."""
        losses = self._step(split_rows(self._strategy, batch))
        return lambda: {name: float(value) for name, value in losses.items()}


def runner(strategy: tf.distribute.Strategy, step: Callable[[Batch], Losses]) -> Here | Workers:
    """What runs a step, not traced yet, where the strategy has it run."""
    if has_servers(strategy):
        return Workers(strategy, lambda batch: _graph(step, batch))
    return Here(strategy, step)
