"""The interests of a stage-1 run (`interest_clusters.py`) → the sections of their page."""

from sitn_tf import schema
from sitn_tf.evaluation import cluster_pictures
from sitn_tf.evaluation.interest_clusters import Granularity, Interests
from sitn_tf.pages.page import Content, MadeBy, Section, Table
from sitn_tf.trained_models import PretrainedRun


def content(run: PretrainedRun, interests: Interests, command: str) -> Content:
    """A section for each granularity: Fig. 3's picture of it, and every pair of clusters.

    Args:
      command: makes the page.
    """
    spaces = zip(interests.spaces, interests.granularities, strict=True)
    sections = [
        Section(
            f"K = {described.clusters}",
            answer(described),
            [*cluster_pictures.shown(space, described), pairs(described)],
        )
        for space, described in spaces
    ]
    facts = {
        "data set": f"{run.info.dataset_hash}, {run.data_dir}",
        "users": f"{len(interests.users.ids):,}, whose instances make the clusters (Eq. 5)",
        "seed": str(run.config.seed),
        "commit": run.info.commit,
        "versions": run.info.told_versions,
    }
    asked = (
        "Which interests do the two domains share? Clusters are matched one to one across the "
        "domains by the cosine of the pair; the map is the t-SNE of both domains' clusters."
    )
    return "Interest clusters, matched across domains", asked, sections, MadeBy([command], facts)


def answer(space: Granularity) -> str:
    """What is measured of one interest space, in sentences."""
    near = space.proximity
    return (
        f"{space.same_pair:.1%} of the users have their first choices of both domains in one "
        f"pair; {space.same_pair_chance:.1%} would by chance. The domains' mean instances are "
        f"{space.apart:.2f} times their spread apart, the clusters' means "
        f"{space.clusters_apart:.2f}. A cluster lies {near.distance:.3f} from the nearest of the "
        f"other domain, {near.ratio:.2f} times what it would with the domains shuffled "
        f"(p = {near.p:.3f})."
    )


def pairs(space: Granularity) -> Table:
    """All pairs of one K, a row each."""
    rows = [
        [
            f"{pair.source} – {pair.target}",
            f"{pair.cosine:.2f}",
            " / ".join(str(pair.users[domain]) for domain in schema.DOMAINS),
            *(" · ".join(pair.items[domain]) for domain in schema.DOMAINS),
        ]
        for pair in space.pairs
    ]
    head = ["source – target", "cosine", "users", "source items", "target items"]
    return Table(f"All pairs of clusters, K = {space.clusters}", head, rows)
