"""A study's page with all that one may have, of made-up numbers and without training."""

import numpy as np

from sitn_tf import schema
from sitn_tf.evaluation import cluster_pictures, interest_clusters
from sitn_tf.evaluation.collapse import Clusters
from sitn_tf.pages import page
from sitn_tf.pages.page import MadeBy
from sitn_tf.studies import arm_curves, figure3, learning_curve, user_gains
from sitn_tf.studies.arms import SCRATCH, Arm
from sitn_tf.studies.learning_curve import LearningCurve
from sitn_tf.studies.page import _result, content
from sitn_tf.studies.tables import Result
from sitn_tf.studies.user_gains import Kept
from tests.sitn_tf import compared_runs

CURVE = LearningCurve({"from_scratch": SCRATCH, "i2i": Arm(), "i2i_i2c": Arm()}, [0.02, 0.1, 1.0])
SEEDS = 3


def study_page(places: np.ndarray) -> str:
    """As HTML: a learning curve, a share's result over seeds and users, clusters, calibration.

    Args:
      places: `[2K, 2]` of the clusters, in place of t-SNE.
    """
    rng = np.random.default_rng(4)
    every = CURVE.every_arm
    results = [
        Result(arm, seed, 0.6 + 0.05 * (n // 3) + 0.02 * (n % 3) + rng.normal() / 200,
               metrics={"auc": 0.7, "log_loss": 0.3})
        for n, arm in enumerate(every) for seed in range(SEEDS)
    ]  # fmt: skip
    kept = Kept({
        (arm, seed): compared_runs.scored(1 + n / 3, 10 * n + seed)
        for n, arm in enumerate(CURVE.arms) for seed in range(2)
    })  # fmt: skip
    shown = [
        learning_curve.section(CURVE, results, "test AUC", {0.02: 4171, 0.1: 20841, 1.0: 206659}),
        _result("With 100 % of the labels", CURVE.at(1.0, results), list(CURVE.arms), "test AUC",
                ["A note."], user_gains.user_gains(kept, list(CURVE.arms), draws=50)),
    ]  # fmt: skip
    epochs = [
        {"epoch": n, "auc": 0.7 + n / 50, "loss": 0.6 / n, "click": 0.5 / n} for n in range(1, 7)
    ]
    return page.page(
        *content(
            "transfer",
            results,
            dict.fromkeys(every, "contrast.i2c_weight=0"),
            "test AUC",
            {arm: [epochs, epochs[:4]] for arm in every},
            "auc",
            MadeBy(["python -m sitn_tf.experiments --labels=0.02,0.1,1"], {"commit": "0" * 12}),
            shown,
            [_clusters(places), arm_curves.calibrations(kept, CURVE.groups)],
            CURVE,
        )
    )


def _clusters(places: np.ndarray) -> page.Section:
    """Fig. 3 with titles as long as Amazon's."""
    size = len(places) // 2
    rng = np.random.default_rng(5)
    new = {d: rng.normal(size=(size, 8)) for d in schema.DOMAINS}
    own = rng.integers(size, size=40 * size)
    instances = {d: new[d][own] + rng.normal(size=(len(own), 8)) / 9 for d in schema.DOMAINS}
    space = Clusters({d: np.eye(size)[own] for d in schema.DOMAINS}, new, instances, 2)
    titles = {
        d: [f"The Complete {d} Adventures of <{n}>: Collector's Edition, Volume {n} of {size}"
            for n in range(size)]
        for d in schema.DOMAINS
    }  # fmt: skip
    described = interest_clusters.describe(space, new, titles, figure3.TITLES)
    near = {"distance": 0.9, "shuffled": 1.0, "ratio": 0.9, "p": 0.001}
    measured = {"arm": "sitn", "seed": 0, "clusters": size, "proximity": near}
    pictured = cluster_pictures.picture_at(places, described)
    return figure3.section(
        [measured | {"same_pair": 0.4, "same_pair_chance": 0.02}],
        [pictured, cluster_pictures.titles(described)] * 2,
    )
