"""FTRL-Proximal for a model's sparse linear weights, beside the optimiser of all else.

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, Algorithm 1; Wide & Deep
trains its wide part so.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sitn_tf.distributed.replicas import Gradient
from sitn_tf.distributed.tables import read_rows
from sitn_tf.optimizers.row_sparse import RowSparse
from sitn_tf.sections import WideConfig


class RowSparseFtrl(RowSparse):
    """FTRL-Proximal with L1 and L2, of which the former makes weights exactly 0.

        n' = n + g²,   z ← z + g - (sqrt(n') - sqrt(n)) / rate · w
        w ← 0 if |z| <= l1, else -(z - sign(z) l1) / (sqrt(n') / rate + l2)

    Only the rows in a sparse gradient are read and written. The algorithm's beta is 0 here, for the
    reason that RowWiseAdagrad's accumulators start at 0: gradients are of a mean over all of a
    step's candidates. L1 is in the units of their sum.

    Args:
      learning_rate: of each weight falls by itself, so no schedule is meant for it.
      l1, l2: strengths of the regularisation.
    """

    def __init__(
        self, learning_rate: float, l1: float = 0.0, l2: float = 0.0, name: str = "RowSparseFtrl"
    ) -> None:
        super().__init__(name=name, weight_decay=None)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.l1, self.l2 = l1, l2

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes n and z of each variable, of its shape."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._squares, self._duals = (
            [self.add_variable_from_reference(variable, slot) for variable in var_list]
            for slot in ("squares", "duals")
        )

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Applies one variable's gradient; the rows of a sparse one are distinct."""
        slot = self._index_dict[self._var_key(variable)]
        kept = (self._squares[slot], self._duals[slot], variable)
        rate = self._share(variable) * tf.cast(self.learning_rate, variable.dtype)
        if not isinstance(gradient, tf.IndexedSlices):
            for values, new in zip(kept, self._step(gradient, rate, *kept), strict=True):
                values.assign(new)
            return
        rows = gradient.indices
        before = (read_rows(values, rows) for values in kept)
        for values, new in zip(kept, self._step(gradient.values, rate, *before), strict=True):
            values.scatter_update(tf.IndexedSlices(new, rows))

    def _step(
        self, gradient: tf.Tensor, rate: tf.Tensor, n: tf.Tensor, z: tf.Tensor, w: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        gradient = tf.cast(gradient, rate.dtype)
        total = n + tf.square(gradient)
        z = z + gradient - (tf.sqrt(total) - tf.sqrt(n)) / rate * w
        beyond = tf.sign(z) * tf.maximum(tf.abs(z) - self.l1, 0.0)
        # A weight without any gradient so far has 0 of both.
        return total, z, -tf.math.divide_no_nan(beyond, tf.sqrt(total) / rate + self.l2)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "l1": self.l1,
            "l2": self.l2,
        }


class Beside(tf.Module):
    """Two optimisers, each of variables of its own, as what the training loop needs of one.

    Its steps and rate are those of `rest`.

    Args:
      rest: of all variables but those of `own`.
      own: of some.
      variables: which.
    """

    def __init__(self, rest: RowSparse, own: RowSparse, variables: Sequence[tf.Variable]) -> None:
        super().__init__()
        self.rest, self.own = rest, own
        self._owned = frozenset(map(id, variables))

    @property
    def iterations(self) -> tf.Variable:
        return self.rest.iterations

    @property
    def _learning_rate(self) -> Any:
        return self.rest._learning_rate

    @property
    def variables(self) -> list[tf.Variable]:
        return [*self.rest.variables, *self.own.variables]

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Makes the slots of both."""
        self.rest.build([v for v in variables if id(v) not in self._owned])
        self.own.build([v for v in variables if id(v) in self._owned])

    def slow_down(self, variables: Sequence[tf.Variable], share: float) -> None:
        """See RowSparse; each has the variables that are its own."""
        for optimizer in (self.rest, self.own):
            optimizer.slow_down(variables, share)

    def apply_distinct(
        self, gradients: Sequence[Gradient | None], variables: Sequence[tf.Variable]
    ) -> None:
        """See RowSparse."""
        for optimizer, owned in ((self.rest, False), (self.own, True)):
            pairs = zip(gradients, variables, strict=True)
            part = [(g, v) for g, v in pairs if (id(v) in self._owned) == owned]
            optimizer.apply_distinct(*zip(*part, strict=True))


def beside_ftrl(
    rest: RowSparse, variables: Sequence[tf.Variable], config: WideConfig
) -> RowSparse | Beside:
    """An optimiser with FTRL beside it for some variables; itself if there are none."""
    if not variables:
        return rest
    return Beside(rest, RowSparseFtrl(config.ftrl_rate, config.ftrl_l1, config.ftrl_l2), variables)
