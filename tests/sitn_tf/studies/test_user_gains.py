"""Gains of a study's arms over users: a loop reference, Holm's correction, runs without files."""

import numpy as np
import pytest

from sitn_tf import schema
from sitn_tf.evaluation import kept_predictions, metrics
from sitn_tf.studies import user_gains
from sitn_tf.studies.arms import Arm
from sitn_tf.studies.runs import Study
from sitn_tf.studies.tables import Result, main_table
from sitn_tf.studies.user_gains import Kept
from tests.sitn_tf import compared_runs

DRAWS = 60
SIGNALS = {"base": 0.8, "up": 1.4, "same": 0.8}


@pytest.fixture(scope="module")
def kept():
    """Two seeds of three arms, one seed of a fourth."""
    scored = {
        (arm, seed): compared_runs.scored(signal, 10 * number + seed)
        for number, (arm, signal) in enumerate(SIGNALS.items())
        for seed in (0, 1)
    }
    return Kept(scored | {("short", 1): compared_runs.scored(0.1, 99)})


def test_a_gain_is_that_of_mean_aucs_in_a_slow_loop(kept):
    found = user_gains.user_gains(kept, ["base", "up", "same", "short", "absent"], DRAWS)
    assert list(found) == ["up", "same", "short"]
    first = kept.by_run["base", 0]
    names, rng = np.unique(first.user), np.random.default_rng(0)
    gains = []
    for _ in range(DRAWS):
        chosen = names[rng.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(first.user[first.request] == u) for u in chosen])
        auc = {run: metrics.auc(first.label[rows], scored.probability[rows])
               for run, scored in kept.by_run.items()}  # fmt: skip
        of = {arm: (auc[arm, 0] + auc[arm, 1]) / 2 for arm in SIGNALS}
        gains.append([of["up"] - of["base"], auc["short", 1] - auc["base", 1]])
    expected = np.quantile(gains, [0.025, 0.975], axis=0)
    for arm, (low, high) in zip(("up", "short"), expected.T, strict=True):
        assert (found[arm].gain.low, found[arm].gain.high) == pytest.approx((low, high))
    # No draw lies on the other side of 0: 2 (1 + 0) / (1 + 60), and thrice that of three arms.
    assert found["up"].gain.p == pytest.approx(2 / 61)
    assert found["up"].corrected == pytest.approx(6 / 61)
    assert found["same"].gain.low < 0 < found["same"].gain.high


def test_of_a_baseline_without_predictions_nothing_is_known(kept):
    assert user_gains.user_gains(kept, ["absent", "up"], DRAWS) == {}


def test_a_study_of_earlier_runs_says_not_kept(small, tmp_path):
    arms = {"base": Arm(pretrain=False), "up": Arm(pretrain=False), "old": Arm(pretrain=False)}
    study = Study(str(small), tmp_path, arms, seeds=2, split=schema.TEST)
    dirs = {run.arm: compared_runs.write(run.stage2, compared_runs.scored(
        SIGNALS.get(run.arm, 1.0), run.seed), dataset_hash="small")
        for run in study.runs() if run.seed == 0}  # fmt: skip
    kept_predictions.path(dirs["old"], schema.TEST).unlink()
    results = [Result(arm, 0, 0.7) for arm in arms]
    kept = user_gains.read(study, results)
    assert list(kept.by_run) == [("base", 0), ("up", 0)]
    [told] = kept.missing
    assert told.startswith(f"old, seed 0: {dirs['old']} keeps no predictions of the test split: ")
    assert told.endswith("--split=test --keep_predictions")
    # Of what is the same there is one copy.
    assert kept.by_run["up", 0].user is kept.by_run["base", 0].user
    found = user_gains.user_gains(kept, list(arms), DRAWS)
    table = main_table(results, list(arms), "AUC", found)
    assert table.head[-3:] == [
        "over users, 95 % interval", "p, bootstrap of users", "p over users, Holm"
    ]  # fmt: skip
    assert [row[-3] for row in table.rows][::2] == ["", "not kept"]
    assert table.rows[1][-3].startswith("+0.")
    assert table.rows[1][-2:] == [f"{2 / 61:.4f}"] * 2
    none = main_table(results, list(arms), "AUC", {})
    assert none.head[-1] == "over users, 95 % interval"
    assert [row[-1] for row in none.rows] == ["", "not kept", "not kept"]


def test_a_study_without_a_stage_2_keeps_none(small, tmp_path):
    study = Study(str(small), tmp_path, {"sitn": Arm()}, stage="1")
    assert user_gains.read(study, [Result("sitn", 0, 0.4)]).by_run == {}
