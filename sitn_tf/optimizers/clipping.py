"""Gradients as the optimisers want them: rows distinct, and clipped by their global norm.

The work follows the rows in a sparse gradient, never the table it is of.
"""

from collections.abc import Sequence

import tensorflow as tf

from sitn_tf.distributed.replicas import Gradient


def combine_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with every row named once: values of equal rows are summed."""
    rows, place = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def with_distinct_rows(gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
    """Each sparse gradient with its rows combined, the others as they are."""
    return [combine_rows(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]


def global_norm(gradients: Sequence[Gradient | None]) -> tf.Tensor:
    """Euclidean norm of all gradients together, a scalar; their rows must be distinct.

    It is not finite where any element is not.
    """
    parts = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    squares = [tf.reduce_sum(tf.square(part)) for part in parts if part is not None]
    return tf.sqrt(tf.add_n(squares))


def clip(
    gradients: Sequence[Gradient | None], norm: tf.Tensor, bound: float
) -> list[Gradient | None]:
    """Scales all gradients by bound / norm where their global norm is above the bound.

    Args:
      norm: their global norm.
      bound: 0 for no clipping.
    """
    if not bound:
        return list(gradients)
    return scale(gradients, bound / tf.maximum(norm, bound))


def scale(gradients: Sequence[Gradient | None], factor: tf.Tensor | float) -> list[Gradient | None]:
    """Each gradient times a number."""
    if isinstance(factor, float) and factor == 1.0:
        return list(gradients)

    def scaled(gradient: Gradient | None) -> Gradient | None:
        if isinstance(gradient, tf.IndexedSlices):
            values = gradient.values * factor
            return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        return None if gradient is None else gradient * factor

    return [scaled(gradient) for gradient in gradients]
