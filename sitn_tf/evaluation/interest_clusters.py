"""Interests you can look at: a pre-trained model → its clusters, matched across the domains.

A cluster is described by the items whose instances, each a history of that one item, are
nearest to it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf import schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation.collapse import Clusters, apart, clusters_of, first_choice, unit_rows
from sitn_tf.evaluation.instances import Users, item_instances, read_user, read_users
from sitn_tf.evaluation.proximity import Proximity, proximity
from sitn_tf.item_tables import ItemTable
from sitn_tf.trained_models import PretrainedRun

USERS_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cluster of the source domain and the one of the target domain that it is matched with.

    Attributes:
      source, target: number of the cluster in its domain.
      cosine: of the two.
      users: of each domain, whose first choice the cluster is.
      items: titles of the nearest items, by domain.
    """

    source: int
    target: int
    cosine: float
    users: dict[str, int]
    items: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Granularity:
    """All pairs of one K, the most alike first.

    Attributes:
      clusters: K.
      same_pair: share of users whose first choices in both domains are a pair.
      same_pair_chance: the same if users were paired at random.
      apart, clusters_apart: of the domains' instances and clusters, see `collapse.apart`.
      proximity: of the domains' clusters, what the eye should see in Fig. 3.
    """

    clusters: int
    same_pair: float
    same_pair_chance: float
    apart: float
    clusters_apart: float
    proximity: Proximity
    pairs: list[Pair]


@dataclasses.dataclass(frozen=True)
class Interests:
    """The interest spaces of a run among users, and the same described."""

    users: Users
    spaces: list[Clusters]
    granularities: list[Granularity]


def find_interests(run: PretrainedRun, users: int, items: int) -> Interests:
    """A run's clusters of every granularity.

    Args:
      users: training users that make the clusters, at most.
      items: that describe a cluster.

    Raises:
      InputError: the run was trained without clusters.
    """
    if not run.model.i2c:
        raise InputError(
            f"{run.run_dir} has no interest spaces: it was trained with contrast.i2c_weight=0"
        )
    among = read_users(run.model, run.data_dir, schema.TRAIN, users, USERS_AT_ONCE)
    spaces = [clusters_of(space, among.instances) for space in run.model.i2c]
    alone = {d: item_instances(run.model, d, t.size) for d, t in run.tables.items()}
    titles = {d: shown_names(t)[schema.FIRST_ID :] for d, t in run.tables.items()}
    described = [describe(space, alone, titles, items) for space in spaces]
    return Interests(among, spaces, described)


def tell(run: PretrainedRun, interests: Interests, user: str) -> str:
    """A user's top-k interests of each domain and granularity, as text.

    Raises:
      InputError: stage 1 has no such user.
    """
    found = read_user(run.model, run.data_dir, user)
    if found is None:
        raise InputError(
            f"user={user} is not among stage 1's users (those with both histories), for "
            f"example {interests.users.ids[0]} is"
        )
    lines = [f"interests of {user}"]
    for space, described in zip(interests.spaces, interests.granularities, strict=True):
        for domain in schema.DOMAINS:
            instance = found.instances[domain][0]
            items: dict[int, Any] = {getattr(p, domain): p.items[domain] for p in described.pairs}
            for cluster, cosine in top_interests(instance, space.new[domain], space.top_k):
                shown = " · ".join(items[cluster])
                lines.append(
                    f"  {domain}, K = {described.clusters}, cluster {cluster} "
                    f"(cosine {cosine:.2f}): {shown}"
                )
    return "\n".join(lines)


def match(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The one-to-one matching of clusters with the largest sum of cosines.

    Args:
      source, target: u `[K, D]`.

    Returns:
      `[K]`: the target cluster of each source cluster.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-(unit_rows(source) @ unit_rows(target).T))
    matched = np.empty(len(source), np.int64)
    matched[rows] = columns
    return matched


def same_pair(first: Mapping[str, np.ndarray], matched: np.ndarray) -> tuple[float, float]:
    """Share of users whose first choices are matched, and what random pairing would give.

    Args:
      first: `[n]` first choices by domain.
      matched: `[K]` as of `match`.
    """
    ours = matched[first[schema.SOURCE]]
    theirs = first[schema.TARGET]
    size = len(matched)
    chance = np.bincount(ours, minlength=size) @ np.bincount(theirs, minlength=size)
    return float(np.mean(ours == theirs)), float(chance / len(ours) ** 2)


def nearest(vectors: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
    """Rows of `[R, D]` vectors nearest to each of `[K, D]` clusters by cosine: `[K, count]`."""
    cosines = unit_rows(clusters) @ unit_rows(vectors).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def describe(
    space: Clusters,
    items: Mapping[str, np.ndarray],
    titles: Mapping[str, Sequence[str]],
    count: int,
) -> Granularity:
    """Matches and describes one interest space.

    Args:
      items: `[R, D]` instances of one-item histories by domain.
      titles: R of them by domain.
      count: items that describe a cluster.
    """
    source, target = space.new[schema.SOURCE], space.new[schema.TARGET]
    matched = match(source, target)
    first = {d: first_choice(space.instances[d], space.new[d]) for d in schema.DOMAINS}
    sizes = {d: np.bincount(first[d], minlength=len(matched)) for d in schema.DOMAINS}
    shown = {d: nearest(items[d], space.new[d], count) for d in schema.DOMAINS}
    cosines = np.sum(unit_rows(source) * unit_rows(target)[matched], axis=1)
    pairs = []
    for s in np.argsort(-cosines, kind="stable"):
        pair = {schema.SOURCE: int(s), schema.TARGET: int(matched[s])}
        users = {d: int(sizes[d][cluster]) for d, cluster in pair.items()}
        described = {d: [titles[d][i] for i in shown[d][cluster]] for d, cluster in pair.items()}
        pairs.append(Pair(**pair, cosine=float(cosines[s]), users=users, items=described))
    share, chance = same_pair(first, matched)
    return Granularity(
        clusters=len(matched),
        same_pair=share,
        same_pair_chance=chance,
        apart=apart(space.instances[schema.SOURCE], space.instances[schema.TARGET]),
        clusters_apart=apart(source, target),
        proximity=proximity(source, target),
        pairs=pairs,
    )


def places(space: Clusters) -> np.ndarray:
    """t-SNE of both domains' clusters together: `[2K, 2]`, the source's first."""
    from sklearn.manifold import TSNE

    both = unit_rows(np.concatenate([space.new[domain] for domain in schema.DOMAINS]))
    perplexity = min(30.0, (len(both) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(both))


def top_interests(instance: np.ndarray, clusters: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k clusters of `[K, D]` nearest to an instance `[D]`, with their cosines (Eq. 6)."""
    cosines = unit_rows(clusters) @ unit_rows(instance[None])[0]
    best = np.argsort(-cosines, kind="stable")[:k]
    return [(int(c), float(cosines[c])) for c in best]


def shown_names(table: ItemTable) -> list[str]:
    """What an item is called: its title, or its raw id where it has none."""
    return [title or item for title, item in zip(table.titles, table.ids, strict=True)]
