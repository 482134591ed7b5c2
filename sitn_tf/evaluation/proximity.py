"""Is each interest cluster near one of the other domain? The number for what Fig. 3 shows.

Pure NumPy.
"""

import dataclasses

import numpy as np

from sitn_tf.evaluation.collapse import unit_rows

DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Proximity:
    """How near the clusters of two domains are to each other, beside a shuffled control.

    Attributes:
      distance: from a cluster to the nearest of the other domain, mean over both domains' clusters:
        Euclidean, between directions (clusters of length 1), so from 0 to 2.
      shuffled: the same, mean over draws that deal the two domains anew among all clusters. It is
        what two samples of one distribution would have.
      p: share of draws, the observed deal among them, with a distance as small.
    """

    distance: float
    shuffled: float
    p: float

    @property
    def ratio(self) -> float:
        """Below 1: clusters have partners in the other domain; above 1: the domains lie apart."""
        return self.distance / self.shuffled if self.shuffled else float("nan")


def proximity(
    source: np.ndarray, target: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Proximity:
    """The proximity of clusters u (Eq. 5) in the embedding space.

    Args:
      source, target: `[K, D]` and `[L, D]`, of any length.
    """
    every = unit_rows(np.concatenate([source, target]).astype(np.float64))
    # Rounding may leave a square just below 0.
    distances = np.sqrt(np.maximum(2.0 - 2.0 * every @ every.T, 0.0))
    observed = mean_nearest(distances[: len(source), len(source) :])
    rng = np.random.default_rng(seed)
    dealt = np.empty(draws)
    for draw in range(draws):
        order = rng.permutation(len(every))
        of_source, of_target = order[: len(source)], order[len(source) :]
        dealt[draw] = mean_nearest(distances[np.ix_(of_source, of_target)])
    as_near = np.count_nonzero(dealt <= observed + 1e-12)
    return Proximity(observed, float(dealt.mean()), float((1 + as_near) / (1 + draws)))


def mean_nearest(distances: np.ndarray) -> float:
    """`[K, L]` from each source to each target → the mean of K + L distances to the nearest."""
    nearest = np.concatenate([distances.min(axis=1), distances.min(axis=0)])
    return float(nearest.mean())
