"""Optimisers whose cost follows the embedding rows touched, not the table."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from sitn_tf.bounds import section_of
from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import Gradient
from sitn_tf.distributed.tables import read_rows
from sitn_tf.errors import InputError
from sitn_tf.optimizers.clipping import with_distinct_rows
from sitn_tf.optimizers.schedules import WarmUpThenDecay
from sitn_tf.sections import TrainingConfig


class RowSparse(tf_keras.optimizers.Optimizer):
    """What the row-sparse optimisers share: sparse gradients reach them with distinct rows."""

    _shares: dict[str, float] | None = None

    def slow_down(self, variables: Sequence[tf.Variable], share: float) -> None:
        """Gives these variables a share of the learning rate, before the first step."""
        self._shares = dict.fromkeys(map(self._var_key, variables), share)

    def _share(self, variable: tf.Variable) -> float:
        return (self._shares or {}).get(self._var_key(variable), 1.0)

    def add_variable_from_reference(
        self,
        model_variable: tf.Variable,
        variable_name: str,
        shape: Sequence[int] | None = None,
        initial_value: Callable[[], tf.Tensor] | None = None,
    ) -> tf.Variable:
        """As in Keras, which makes the first values here: these are made where the variable lies.

        A chief would send each parameter server all zeros of its shards.
        """
        if initial_value is None:
            like = shape or model_variable.shape
            initial_value = functools.partial(tf.zeros, like, _true_dtype(model_variable))
        return super().add_variable_from_reference(
            model_variable, variable_name, shape, initial_value
        )

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Gradient | None, tf.Variable]],
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
    ) -> tf.Variable:
        """As in Keras; rows that a sparse gradient names twice are summed first."""
        if not skip_gradients_aggregation:
            grads_and_vars = self.aggregate_gradients(grads_and_vars)
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply_distinct(with_distinct_rows(gradients), variables)
        return self.iterations

    def apply_distinct(
        self, gradients: Sequence[Gradient | None], variables: Sequence[tf.Variable]
    ) -> None:
        """Applies gradients that are summed over replicas and name every row once."""
        super().apply_gradients(
            zip(gradients, variables, strict=True), skip_gradients_aggregation=True
        )

    def _deduplicate_sparse_grad(self, grads: Sequence[Gradient]) -> Sequence[Gradient]:
        # Keras would look for equal rows again.
        return grads


class RowSparseAdam(RowSparse, tf_keras.optimizers.Adam):
    """Adam (Kingma and Ba, 2015) with lazy updates of embeddings.

    A dense gradient is applied as usual. Of a variable with a sparse gradient only the
    rows in it are read and written, slots included; bias correction goes by the global step.

    Args:
      row_decay: decoupled decay of touched embedding rows, as a share of the learning rate.
      **options: of tf_keras.optimizers.Adam.
    """

    def __init__(self, row_decay: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.row_decay = row_decay

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Applies one variable's gradient; the rows of a sparse one are distinct."""
        share = self._share(variable)
        if not isinstance(gradient, tf.IndexedSlices):
            before = tf.identity(variable) if share != 1.0 else None
            super().update_step(gradient, variable)
            if before is not None:
                variable.assign(before + share * (variable - before))
            return
        slot = self._index_dict[self._var_key(variable)]
        momentum, velocity = self._momentums[slot], self._velocities[slot]
        rows, values = gradient.indices, tf.cast(gradient.values, variable.dtype)
        step = tf.cast(self.iterations + 1, variable.dtype)
        rate = share * tf.cast(self.learning_rate, variable.dtype)
        corrected = rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)

        m = self.beta_1 * read_rows(momentum, rows) + (1 - self.beta_1) * values
        v = self.beta_2 * read_rows(velocity, rows) + (1 - self.beta_2) * tf.square(values)
        change = corrected * m / (tf.sqrt(v) + self.epsilon)
        if self.row_decay:
            change += rate * self.row_decay * read_rows(variable, rows)
        momentum.scatter_update(tf.IndexedSlices(m, rows))
        velocity.scatter_update(tf.IndexedSlices(v, rows))
        variable.scatter_sub(tf.IndexedSlices(change, rows))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"row_decay": self.row_decay}


class RowWiseAdagrad(RowSparse):
    """Adagrad (Duchi et al., 2011) with one accumulator a row of an embedding table.

    The accumulator of a row adds up the mean square of the row's gradients, so a table's
    slots cost 1/D of its weights, where Adam's cost twice them. All other variables have an
    accumulator an element. Only the rows in a sparse gradient are read and written.
    Accumulators start at 0, not at the usual 0.1: the gradient of a mean over 2,560 candidates
    is so small that 0.1 outweighs it for good (BUILD_NOTES.md, "Which optimiser
    trains best").

        a ← a + mean(g²),   w ← w − rate · (g / sqrt(a + ε) + row_decay · w)

    Args:
      learning_rate: a number or a schedule.
      row_decay: decoupled decay of touched embedding rows, as a share of the learning rate.
      initial_accumulator: a at the start.
      epsilon: ε.
    """

    def __init__(
        self,
        learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule = 0.01,
        row_decay: float = 0.0,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-12,
        name: str = "RowWiseAdagrad",
    ) -> None:
        super().__init__(name=name, weight_decay=None)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.row_decay = row_decay
        self.initial_accumulator = initial_accumulator
        self.epsilon = epsilon

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes the accumulators: `[rows]` of a table, else of the variable's shape."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._accumulators = []
        for variable in var_list:
            by_row = tables.slots_of(variable) == "by_row"
            shape = variable.shape[:1] if by_row else variable.shape
            filled = functools.partial(
                tf.fill, shape, tf.cast(self.initial_accumulator, _true_dtype(variable))
            )
            self._accumulators.append(
                self.add_variable_from_reference(variable, "accumulator", initial_value=filled)
            )

    def apply_distinct(
        self, gradients: Sequence[Gradient | None], variables: Sequence[tf.Variable]
    ) -> None:
        """As in the base class.

        Raises:
          ValueError: a variable is read by rows and not marked as a table, so that it has an
            accumulator an element without anybody having said so.
        """
        for gradient, variable in zip(gradients, variables, strict=True):
            if isinstance(gradient, tf.IndexedSlices) and tables.slots_of(variable) is None:
                raise ValueError(
                    f"{variable.name} is read by rows: make it with layers.embedding.add_table"
                )
        super().apply_distinct(gradients, variables)

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Applies one variable's gradient; the rows of a sparse one are distinct."""
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        rate = self._share(variable) * tf.cast(self.learning_rate, variable.dtype)
        sparse = isinstance(gradient, tf.IndexedSlices)
        values = tf.cast(gradient.values if sparse else gradient, variable.dtype)
        by_row = len(accumulator.shape) < len(variable.shape)
        squares = tf.square(values)
        if by_row:
            squares = tf.reduce_mean(squares, axis=1)
        if sparse:
            total = read_rows(accumulator, gradient.indices) + squares
            accumulator.scatter_update(tf.IndexedSlices(total, gradient.indices))
        else:
            total = accumulator.assign_add(squares)
        scale = tf.sqrt(total + self.epsilon)
        change = rate * values / (scale[:, None] if by_row else scale)
        if not sparse:
            variable.assign_sub(change)
            return
        if self.row_decay:
            change += rate * self.row_decay * read_rows(variable, gradient.indices)
        variable.scatter_sub(tf.IndexedSlices(change, gradient.indices))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "row_decay": self.row_decay,
            "initial_accumulator": self.initial_accumulator,
            "epsilon": self.epsilon,
        }


def _true_dtype(variable: tf.Variable) -> tf.DType:
    """Of a variable's memory: under mixed precision `dtype` is what it is read as."""
    return getattr(variable, "true_dtype", variable.dtype)


def make_optimizer(config: TrainingConfig, steps: int | None) -> RowSparse:
    """The optimiser that a stage's configuration names.

    Args:
      steps: of an epoch; None where the data set does not say.

    Raises:
      InputError: a decay over all epochs whose number of steps is not known, or one that
        ends within the warm-up.
    """
    rate = make_rate(config, steps)
    if config.optimizer == "adagrad":
        return RowWiseAdagrad(rate, config.row_decay)
    return RowSparseAdam(learning_rate=rate, row_decay=config.row_decay)


def make_rate(config: TrainingConfig, steps: int | None) -> float | WarmUpThenDecay:
    """The configured learning rate: a number where it does not change."""
    if config.schedule == "constant" and not config.warmup_steps:
        return config.learning_rate
    decay_steps = config.decay_steps or (steps or 0) * config.epochs
    if config.schedule != "constant" and decay_steps <= config.warmup_steps:
        section = section_of(type(config))
        raise InputError(
            f"{section}.schedule={config.schedule} has {decay_steps} steps in all (decay_steps, or "
            f"the steps of all epochs), no more than warmup_steps={config.warmup_steps}",
            f"give a larger decay_steps, such as {section}.decay_steps=10000",
        )
    return WarmUpThenDecay(
        config.learning_rate,
        config.schedule,
        config.warmup_steps,
        decay_steps,
        config.final_rate,
    )


def rate_at(optimizer: tf_keras.optimizers.Optimizer, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    rate = optimizer._learning_rate
    if isinstance(rate, tf_keras.optimizers.schedules.LearningRateSchedule):
        return float(rate(tf.constant(step, tf.int64)))
    return float(tf.convert_to_tensor(rate))
