"""Fig. 3 of the paper: the stage-1 runs of a study → pictures of their clusters, and the numbers.

<workdir>/figure3.json   of each seed and K: what `interest_clusters.Granularity` measures

The study's page has t-SNE of the first seed's clusters of both domains, a picture a K, with titles
of some clusters' items. As in the paper the interest spaces of K = 32, 64, 128 and 256 are those of
one model. That "almost each interest cluster in the source domain has an interest cluster in the
target domain that is very close to it" is measured by evaluation/proximity.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sitn_tf import extras, quiet, runs, whole_files
from sitn_tf.evaluation.comparison import SIGNIFICANT
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Section, Table
from sitn_tf.studies.runs import Study

NAME = "figure3"
TITLES = 3
"""Items that describe a cluster."""
USERS = 20_000
"""Training users that make the clusters, at most."""


def check_extras() -> None:
    """Raises InputError where what draws the picture is missing."""
    extras.check(f"study={NAME}", "interests", "matplotlib", "sklearn")


def write(study: Study) -> Section:
    """Writes figure3.json of the seeds that are there, and returns what the page shows.

    Raises:
      InputError: the runs have no clusters.
    """
    quiet.import_tensorflow()
    from sitn_tf import trained_models
    from sitn_tf.evaluation import cluster_pictures, interest_clusters

    measured: list[dict[str, Any]] = []
    shown: list[Picture | Table] = []
    for run in study.runs():
        if run.stage1 is None or not runs.is_finished(run.stage1):
            continue
        trained = trained_models.load_pretrainer(run.stage1, study.data_dir)
        found = interest_clusters.find_interests(trained, USERS, TITLES)
        if not measured:
            for clusters, space in zip(found.spaces, found.granularities, strict=True):
                shown += cluster_pictures.shown(clusters, space)
        for space in found.granularities:
            described = dataclasses.asdict(space)
            del described["pairs"]
            described["proximity"]["ratio"] = space.proximity.ratio
            measured.append({"arm": run.arm, "seed": run.seed, **described})
    whole_files.write_json(study.workdir / f"{NAME}.json", measured)
    return section(measured, shown)


def section(
    measured: Sequence[Mapping[str, Any]], shown: Sequence[Picture | Table] = ()
) -> Section:
    """A row a seed and K, with the distance to the nearest cluster of the other domain.

    Args:
      measured: what figure3.json holds.
      shown: pictures of the clusters, and titles of some.
    """
    titles = ["arm", "seed", "K", "to the nearest", "shuffled", "ratio", "p"]
    titles += ["users within a pair", "by chance"]
    rows = []
    for one in measured:
        near = one["proximity"]
        row = [one["arm"], str(one["seed"]), str(one["clusters"])]
        row += [f"{near[name]:.3f}" for name in ("distance", "shuffled", "ratio", "p")]
        rows.append([*row, f"{one['same_pair']:.1%}", f"{one['same_pair_chance']:.1%}"])
    nearer = sum(one["proximity"]["p"] < SIGNIFICANT for one in measured)
    answer = (
        f"In {nearer} of {len(measured)} spaces clusters lie nearer to those of the other domain "
        "than where the domains are shuffled."
    )
    table = Table("Clusters of both domains", titles, rows)
    note = (
        f"t-SNE of the clusters of both domains, seed {measured[0]['seed']}; those that are "
        "matched one to one are joined. Numbers are of the most alike pairs that users have "
        "chosen first."
    )
    return Section("Fig. 3", answer, [table, *([note, *shown] if shown else [])])
