"""Has stage 1 collapsed? What clusters and instances look like among held-out users.

The printed losses have ways to fall without learning anything: all clusters become one, most
are never chosen, or each domain agrees with itself alone.
Pure NumPy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sitn_tf import schema

if TYPE_CHECKING:
    from sitn_tf.layers.contrast import InstanceToCluster

DEAD_SHARE = 0.9
ENTROPY = 0.2
COSINE = 0.9
LIFT = 1.5
"""Bounds: see `find`."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """One interest space among n users.

    Attributes:
      assignment: pi `[n, K]` by domain (Eq. 5).
      new: u `[K, D]` by domain (Eq. 5).
      instances: p `[n, D]` by domain; row i of both is the same user.
      top_k: views of a user (Eq. 6).
    """

    assignment: Mapping[str, np.ndarray]
    new: Mapping[str, np.ndarray]
    instances: Mapping[str, np.ndarray]
    top_k: int


def clusters_of(space: "InstanceToCluster", instances: Mapping[str, np.ndarray]) -> Clusters:
    """The interest space of a contrast among n users, from their `[n, D]` instances by domain."""
    encoders = {schema.SOURCE: space.source, schema.TARGET: space.target}
    every = np.ones(len(instances[schema.SOURCE]), bool)
    return Clusters(
        assignment={d: e.assign(instances[d], every).numpy() for d, e in encoders.items()},
        new={d: e(instances[d], every).numpy() for d, e in encoders.items()},
        instances=instances,
        top_k=space.config.top_k,
    )


def examine(space: Clusters) -> dict[str, float]:
    """Measures of one granularity, by name.

    `<domain>/dead`: share of clusters that are no user's first choice.
    `<domain>/entropy`: of the mean assignment, as a share of log K.
    `<domain>/cosine`: mean cosine among new clusters.
    `clusters_apart`: distance of the two domains' mean new clusters, as a multiple of the spread.
    `agreement`: share of users whose own cluster in one domain is among the top k that their
      instance of the other domain is nearest to; mean of both directions.
    `agreement_chance`: the same with the two domains' users paired at random.
    """
    measures = {}
    for domain in schema.DOMAINS:
        measures[f"{domain}/dead"] = dead_share(space.assignment[domain])
        measures[f"{domain}/entropy"] = relative_entropy(space.assignment[domain])
        measures[f"{domain}/cosine"] = mean_cosine(space.new[domain])
    measures["clusters_apart"] = apart(space.new[schema.SOURCE], space.new[schema.TARGET])
    both = [
        agreement(space.instances[other], space.instances[domain], space.new[domain], space.top_k)
        for domain, other in (schema.DOMAINS, schema.DOMAINS[::-1])
    ]
    share, chance = np.mean(both, axis=0)
    return measures | {"agreement": float(share), "agreement_chance": float(chance)}


def dead_share(assignment: np.ndarray) -> float:
    """`[n, K]` → share of the K clusters that are the first choice of none of the n."""
    return 1.0 - len(np.unique(assignment.argmax(axis=1))) / assignment.shape[1]


def relative_entropy(assignment: np.ndarray) -> float:
    """Entropy of the mean of `[n, K]` over log K: 1 if all clusters are used alike."""
    clusters = assignment.shape[1]
    if clusters == 1:
        return 1.0
    mean = assignment.mean(axis=0, dtype=np.float64)
    used = mean[mean > 0]
    return float(-np.sum(used * np.log(used)) / np.log(clusters))


def mean_cosine(vectors: np.ndarray) -> float:
    """Mean cosine between two different rows of `[K, D]`; 0 for a single one."""
    if len(vectors) < 2:
        return 0.0
    unit = unit_rows(vectors)
    cosines = unit @ unit.T
    return float((cosines.sum() - np.trace(cosines)) / (len(vectors) * (len(vectors) - 1)))


def apart(source: np.ndarray, target: np.ndarray) -> float:
    """Are the domains two clouds? The distance of their means, relative to their spread.

    The spread is the root mean square distance of a vector to its own domain's mean: 0 is one
    cloud, and far above 1 are two with nothing between. NaN if each domain is a single point.

    Args:
      source, target: `[n, D]` and `[m, D]`.
    """
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (source, target)]
    squares = [
        np.sum((vectors - mean) ** 2, axis=1)
        for vectors, mean in zip((source, target), means, strict=True)
    ]
    spread = float(np.sqrt(np.mean(np.concatenate(squares))))
    return float(np.linalg.norm(means[0] - means[1])) / spread if spread else float("nan")


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """`[R, D]` → the same directions, of length 1; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def first_choice(instances: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """`[n]`: the cluster of `[K, D]` with the largest product with each of `[n, D]` instances."""
    return (instances @ clusters.T).argmax(axis=1)


def agreement(
    anchors: np.ndarray, own: np.ndarray, clusters: np.ndarray, k: int
) -> tuple[float, float]:
    """Is a user's cluster among the k nearest to the user's instance of the other domain?

    Args:
      anchors: `[n, D]` instances of the other domain.
      own: `[n, D]` instances of the clusters' domain.
      clusters: u `[K, D]`.

    Returns:
      The share of users, and what it would be if users were paired at random.
    """
    first = first_choice(own, clusters)
    nearest = np.argsort(-(anchors @ clusters.T), axis=1, kind="stable")[:, :k]
    share = float(np.mean((nearest == first[:, None]).any(axis=1)))
    size = len(clusters)
    chosen = np.bincount(first, minlength=size) / len(own)
    offered = np.bincount(nearest.ravel(), minlength=size) / len(own)
    return share, float(chosen @ offered)


def find(measured: Mapping[str, float]) -> dict[str, str]:
    """Signs of collapse in metrics of `stage1.held_out`, as sentences by what they are about.

    More than 90 % of a domain's clusters dead, an entropy below 0.2, a mean cosine above 0.9,
    or an agreement under 1.5 times chance in every granularity.
    """
    signs = {}
    for name, value in measured.items():
        *where, what = name.split("/")
        clusters = _name(where)
        if what == "dead" and value > DEAD_SHARE:
            signs[name] = f"{value:.0%} of {clusters} are no user's first choice"
        if what == "entropy" and value < ENTROPY:
            signs[name] = f"the assignment to {clusters} has {value:.0%} of the highest entropy"
        if what == "cosine" and value > COSINE:
            signs[name] = f"{clusters} are alike: mean cosine {value:.2f}"
    lifts = [
        measured[name] / max(measured[f"{name}_chance"], 1e-12)
        for name in measured
        if name.endswith("/agreement")
    ]
    if lifts and max(lifts) < LIFT:
        signs["agreement"] = (
            f"the domains do not agree on users' clusters: at best {max(lifts):.1f} times chance"
        )
    return signs


def _name(where: Sequence[str]) -> str:
    """["clusters_<K>", domain] → the words for these clusters."""
    if len(where) != 2:
        return ""
    return f"the {where[1]} clusters of K = {where[0].removeprefix('clusters_')}"
