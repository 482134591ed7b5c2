"""Items folded for serving: id embedding and side features summed once, at export.

A served item costs one row of one table, whatever the number of its side features, and with
model.popularity a number of another.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from export.options import TableKind
from sitn_tf import schema
from sitn_tf.models.scorer import Scorer

FOLD_ROWS = 8192
"""Items folded at once: bounds the memory that title words take."""

INT8_LEVELS = 127.0


def fold(scorer: Scorer) -> dict[str, Iterator[np.ndarray]]:
    """The vectors of all item ids by domain, `[FOLD_ROWS, W]` float32 at a time, in their order.

    Row 0 (padding) is zero. Of tables that nearly fill a machine there is never a second one.
    """
    return {domain: _fold(scorer, domain) for domain in scorer.items}


def _fold(scorer: Scorer, domain: str) -> Iterator[np.ndarray]:
    rows = scorer.items[domain].table.size
    for first in range(0, rows, FOLD_ROWS):
        ids = tf.range(first, min(first + FOLD_ROWS, rows), dtype=tf.int64)
        yield scorer.item_vectors(domain, ids).numpy()


def fold_popularity(scorer: Scorer) -> tuple[float, np.ndarray] | None:
    """What logits are multiplied by, and what is added to each target item's, `[V]` float32.

    None without popularity.
    """
    if scorer.popularity is None:
        return None
    added = scorer.popularity.of(tf.range(scorer.items[schema.TARGET].table.size)).numpy()
    return float(scorer.popularity.fit[0]), added


def quantise(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[V, D]` float32 → `[V, D]` int8 and `[V, 1]` float32 scales, v ≈ int8 * scale.

    Symmetric and per row, so that a zero row stays zero and an item of large norm does not
    cost the others their precision.
    """
    scale = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float32) / INT8_LEVELS
    safe = np.where(scale > 0, scale, 1.0)
    return np.rint(vectors / safe).astype(np.int8), scale


class ItemVectors(tf.Module):
    """A table of item vectors in the graph.

    Args:
      parts: the rows in their order, `[., D]` float32 each.
      rows: V, how many there are in all.
      kind: how they are stored; looked-up vectors are float32 in any case.
    """

    def __init__(self, parts: Iterable[np.ndarray], rows: int, kind: TableKind, name: str) -> None:
        super().__init__(name=name)
        self.rows, self.scale = rows, None
        first = 0
        for part in parts:
            if not first:
                self._make_tables(part.shape[1], kind)
            last = first + len(part)
            if self.scale is not None:
                part, scale = quantise(part)
                self.scale[first:last].assign(scale)
            self.table[first:last].assign(part.astype(self.table.dtype.as_numpy_dtype))
            first = last

    def _make_tables(self, dim: int, kind: TableKind) -> None:
        self.dim, name = dim, self.name
        if kind == "int8":
            scale = tf.zeros([self.rows, 1])
            self.scale = tf.Variable(scale, trainable=False, name=f"{name}_scale")
        table = tf.zeros([self.rows, dim], kind)
        self.table = tf.Variable(table, trainable=False, name=f"{name}_vectors")

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """`[...]` ids, each in `[0, V)` → `[..., D]` float32."""
        vectors = tf.cast(tf.gather(self.table, ids), tf.float32)
        return vectors if self.scale is None else vectors * tf.gather(self.scale, ids)
