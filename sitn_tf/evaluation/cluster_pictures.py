"""Interest spaces (`interest_clusters.py`) → Fig. 3: pictures of clusters, and titles of some.

A few pairs of clusters have a number in the picture, and their items in the table beside it: what
a cluster is can be read without pointing at it, on paper too.
"""

from sitn_tf import pictures, schema
from sitn_tf.evaluation.collapse import Clusters
from sitn_tf.evaluation.interest_clusters import Granularity, Pair, places
from sitn_tf.figures import Picture
from sitn_tf.page import Table

NAMED = 5
"""Pairs with a number."""


def named_pairs(described: Granularity) -> list[Pair]:
    """The most alike of those that are users' first choices in both domains; NAMED at most."""
    lived_in = [pair for pair in described.pairs if min(pair.users.values())]
    return lived_in[:NAMED]


def picture(space: Clusters, described: Granularity) -> Picture:
    """Both domains' clusters on a plane, matched ones joined, `named_pairs` numbered."""
    size, found = described.clusters, places(space)
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
    """What the numbered pairs of a picture are."""
    rows = [
        [str(n), *(" · ".join(pair.items[d]) for d in schema.DOMAINS), f"{pair.cosine:.2f}",
         " / ".join(str(pair.users[d]) for d in schema.DOMAINS)]
        for n, pair in enumerate(named_pairs(described), start=1)
    ]  # fmt: skip
    return Table(
        f"K = {described.clusters}: the numbered pairs by their nearest items",
        ["pair", *(f"{domain} items" for domain in schema.DOMAINS), "cosine", "users"],
        rows,
    )
