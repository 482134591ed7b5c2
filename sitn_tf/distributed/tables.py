"""Embedding tables: variables that a step reads and updates by a few rows of many.

A table is marked where it is made (`layers.embedding.add_table`), so that the optimiser gives it
slots by row and complains of a variable that is read by rows but carries no mark.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import numpy as np
import tensorflow as tf
import tf_keras

Slots = Literal["by_row", "by_element"]
"""What an optimiser that can do with one number a row keeps of a variable."""

_MARK = "slots_of_table"

_MAY_BE_CUT = contextvars.ContextVar("may_be_cut", default=False)


@contextlib.contextmanager
def may_be_cut() -> Iterator[None]:
    """Within it, variables of many rows are made: those that parameter servers may share out.

    All others are read whole in every step.
    """
    token = _MAY_BE_CUT.set(True)
    try:
        yield
    finally:
        _MAY_BE_CUT.reset(token)


def is_to_be_cut() -> bool:
    """Whether the variable that is being made may be cut into shards."""
    return _MAY_BE_CUT.get()


class Rows(tf_keras.initializers.Initializer):
    """The rows of an array; a shard of a table is sent its own alone."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __call__(
        self,
        shape: tf.TensorShape,
        dtype: tf.DType,
        partition_shape: tuple[int, ...] | None = None,
        partition_offset: tuple[int, ...] = (0,),
    ) -> tf.Tensor:
        rows = (partition_shape or shape)[0]
        return tf.constant(self.values[partition_offset[0] : partition_offset[0] + rows], dtype)


def mark(table: tf.Variable, slots: Slots = "by_row") -> tf.Variable:
    """Says that gradients of a variable name rows; returns it. A sharded one's shards have it too.

    Args:
      slots: by_element for a few rows that all steps touch, such as positions.
    """
    for part in (table, *parts_of(table)):
        setattr(part, _MARK, slots)
    return table


def slots_of(variable: tf.Variable) -> Slots | None:
    """The mark of a variable; None of one that is no table."""
    slots: Slots | None = getattr(variable, _MARK, None)
    return slots


def parts_of(table: tf.Variable) -> list[tf.Variable]:
    """The shards of a table over parameter servers; of another the table itself."""
    return list(getattr(table, "variables", [table]))


def rows_of(table: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """The rows of a table; of one sharded over parameter servers only these travel."""
    if isinstance(table, tf.Variable):
        return read_rows(table, rows)
    return tf.nn.embedding_lookup(table, rows)


def read_rows(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """`tf.gather(variable, rows)` that reads these rows only.

    Of a mirrored variable `tf.gather` reads the whole, and copies it where a sparse update has
    touched it: 200 ms a step beside 10^7 rows of 8 (BUILD_NOTES.md, "Cost of a step
    with large tables").
    """
    if isinstance(variable, tf.distribute.DistributedValues):
        variable = variable._get_on_device_or_primary()
    return variable.sparse_read(rows)
