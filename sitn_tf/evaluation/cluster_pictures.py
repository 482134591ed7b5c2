"""Interest spaces (`interest_clusters.py`) → Fig. 3: pictures of clusters, and titles of some.

A few pairs of clusters have a number in the picture, and their items in the table beside it: what
a cluster is can be read without pointing at it, on paper too.
"""

import numpy as np

from sitn_tf import schema
from sitn_tf.evaluation.collapse import Clusters
from sitn_tf.evaluation.interest_clusters import Granularity, Pair, places
from sitn_tf.pages import pictures
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Table

NAMED = 5
"""Pairs with a number."""
_LONGEST_TITLE = 40


def named_pairs(described: Granularity) -> list[Pair]:
    """The most alike of those that are users' first choices in both domains; NAMED at most."""
    lived_in = [pair for pair in described.pairs if min(pair.users.values())]
    return lived_in[:NAMED]


def shown(space: Clusters, described: Granularity) -> list[Picture | Table]:
    """What a page has of a space: its picture, and the titles of the numbered pairs."""
    return [picture(space, described), titles(described)]


def picture(space: Clusters, described: Granularity) -> Picture:
    """`picture_at` where t-SNE places the clusters."""
    return picture_at(places(space), described)


def picture_at(found: np.ndarray, described: Granularity) -> Picture:
    """Both domains' clusters on a plane, matched ones joined, `named_pairs` numbered.

    Args:
      found: `[2K, 2]`, the source's clusters first.
    """
    size = described.clusters
    items = {
        (domain, getattr(pair, domain)): " · ".join(pair.items[domain])
        for pair in described.pairs
        for domain in schema.DOMAINS
    }
    source, target = (
        pictures.Points(
            domain,
            found[first : first + size, 0],
            found[first : first + size, 1],
            [items[domain, cluster] for cluster in range(size)],
        )
        for domain, first in zip(schema.DOMAINS, (0, size), strict=True)
    )
    return pictures.clusters(
        f"K = {size}; {described.same_pair:.0%} of users within a pair, nearest "
        f"{described.proximity.ratio:.2f} times shuffled",
        source,
        target,
        [(pair.source, pair.target) for pair in described.pairs],
        [
            (str(n), pair.source, pair.target)
            for n, pair in enumerate(named_pairs(described), start=1)
        ],
    )


def titles(described: Granularity) -> Table:
    """What the numbered pairs of a picture are: a row a cluster, narrow enough for a phone."""
    rows = [
        [
            f"{n} {domain}",
            " · ".join(map(_short, pair.items[domain])),
            str(pair.users[domain]),
            f"{pair.cosine:.2f}",
        ]
        for n, pair in enumerate(named_pairs(described), start=1)
        for domain in schema.DOMAINS
    ]
    return Table(
        f"K = {described.clusters}: nearest items",
        ["pair", "items", "users", "cosine"],
        rows,
    )


def _short(title: str) -> str:
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"
