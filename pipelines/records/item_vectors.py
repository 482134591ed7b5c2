"""Vectors of item files → those of item tables: centred by domain, short, of length 1.

Domains differ in what their items look like on the whole; less its own centre an item of either is
told from its like. One PCA then keeps the directions in which items of both differ most, so that
a model needs one projection for both domains and equal vectors mean equal items.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.logs import files

_ROWS = 1 << 13
"""Vectors widened to float64 at once."""
_DECIMALS = 5
"""Of components: what is behind them differs with the number of threads."""
_NOTHING = 1e-6
"""Share of a vector's length below which what is left of it is rounding."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of a domain's items that have vectors.

    Attributes:
      count: n.
      mean: float64 [W].
      scatter: float64 [W, W], the sum of the outer products of vectors less their mean.
    """

    domain: str
    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, domain: str, vectors: np.ndarray) -> "Moments":
        """Of float32 [n, W], of which rows of zeros are of items without one; one has one."""
        count = int(vectors.any(axis=1).sum())
        mean = vectors.sum(axis=0, dtype=np.float64) / count
        scatter = np.zeros((len(mean), len(mean)))
        for first in range(0, len(vectors), _ROWS):
            rows = vectors[first : first + _ROWS]
            centred = rows[rows.any(axis=1)] - mean
            scatter += centred.T @ centred
        return cls(domain, count, mean, scatter)


@dataclasses.dataclass(frozen=True)
class Basis:
    """What makes the vectors of item tables.

    Attributes:
      centres: by domain, float64 [W].
      components: float64 [W, P], columns orthonormal but for rounding; the identity where nothing
        is reduced.
    """

    centres: dict[str, np.ndarray]
    components: np.ndarray

    @property
    def width(self) -> int:
        """W, of the vectors in item files."""
        return len(self.components)

    def apply(self, domain: str, vectors: np.ndarray) -> np.ndarray:
        """Float32 [n, W] → float16 [n, P] of length 1; zeros of zeros, and at the centre."""
        made = np.zeros((len(vectors), self.components.shape[1]), np.float16)
        for first in range(0, len(vectors), _ROWS):
            raw = vectors[first : first + _ROWS]
            short = (raw - self.centres[domain]) @ self.components
            length = np.linalg.norm(short, axis=1, keepdims=True)
            before = np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
            enough = (before > 0) & (length > _NOTHING * before)
            made[first : first + _ROWS] = np.where(enough, short / np.where(enough, length, 1), 0)
        return made

    def to_bytes(self) -> bytes:
        """The content of schema.ITEM_VECTORS_PATH."""
        content = io.BytesIO()
        centres = dict(sorted(self.centres.items()))
        # NumPy's types take any of the names for its own argument allow_pickle.
        np.savez(content, components=self.components, **centres)  # type: ignore[arg-type]
        return content.getvalue()

    @classmethod
    def read(cls, path: str) -> "Basis":
        """Of a file of `to_bytes`."""
        with files.reading(path) as stream, np.load(io.BytesIO(stream.read())) as arrays:
            centres = dict(arrays)
            return cls(centres, centres.pop("components"))


def fit(moments: Sequence[Moments], dim: int, carried: Basis | None = None) -> Basis:
    """The centre of each domain, and the `dim` principal components of both together.

    A component's sign is that which makes the largest of its numbers positive.

    Args:
      moments: of one domain or two, of vectors of one width.
      dim: P; vectors that are not longer are not reduced.
      carried: of an earlier data set: its components and centres stay; only domains that had no
        vector get their centre.
    """
    centres = {m.domain: m.mean for m in moments}
    if carried is not None:
        return Basis(centres | carried.centres, carried.components)
    width = len(moments[0].mean)
    if width <= dim:
        return Basis(centres, np.eye(width))
    ordered = sorted(moments, key=lambda m: m.domain)  # sums of floats depend on their order
    _, ascending = np.linalg.eigh(np.sum([m.scatter for m in ordered], axis=0))
    components = ascending[:, : -dim - 1 : -1]
    largest = np.abs(components).argmax(axis=0)
    signs = np.sign(components[largest, np.arange(dim)])
    return Basis(centres, np.round(components * signs, _DECIMALS))


def as_column(vectors: np.ndarray) -> pa.Array:
    """Float16 [n, P] → a column of an item table [n]."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
