import dataclasses

import numpy as np
import pytest

from sitn_tf import runs, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, metrics
from sitn_tf.evaluation.kept_predictions import Predictions

SCORED = Predictions(
    request=np.array([0, 0, 2, 2, 2]),  # the second record has no candidate
    candidate=np.array([7, 2**31 - 1, 3, 4, 5]),
    label=np.array([1, 0, 0, 1, 1]),
    logged_score=None,
    logit=np.array([0.3, -0.2, 0.9, 1.1, 2.0], np.float32),
    user=np.array([2**62 - 1, 5, 5]),
    source_length=np.array([0, 200_000, 1]),
    target_length=np.array([3, 0, 2]),
)


@pytest.fixture
def run_dir(tmp_path):
    """A run that tells the AUC of SCORED."""
    _tell(tmp_path, "test", SCORED)
    return tmp_path


def _tell(run_dir, split, scored, dataset_hash="d1"):
    info = runs.RunInfo("stage2", "data", dataset_hash, "none", {})
    whole_files.write_json(run_dir / runs.RUN_FILE, dataclasses.asdict(info))
    auc = metrics.auc(scored.label, scored.probability)
    whole_files.write_json(run_dir / runs.METRICS_FILE, {split: {"auc": auc}})


@pytest.mark.parametrize("logged", [None, np.linspace(0, 1, 5, dtype=np.float32)])
def test_what_is_read_is_what_was_kept(run_dir, logged):
    scored = dataclasses.replace(SCORED, logged_score=logged)
    kept_predictions.write(scored, run_dir, "test")
    kept = kept_predictions.read(run_dir, "test")
    for name, values in vars(scored).items():
        np.testing.assert_array_equal(getattr(kept, name), values)
        assert values is None or getattr(kept, name).dtype == values.dtype
    assert sorted(p.name for p in run_dir.iterdir()) == [
        "metrics.json",
        "predictions-test.npz",
        "run.json",
    ]


def test_predictions_of_something_else_are_never_read(run_dir):
    remedy = r": python -m sitn_tf\.evaluate --run_dir=.* --split=test --keep_predictions$"
    with pytest.raises(InputError, match=f"keeps no predictions of the test split{remedy}"):
        kept_predictions.read(run_dir, "test")
    kept_predictions.write(SCORED, run_dir, "test")
    file = kept_predictions.path(run_dir, "test")
    file.rename(kept_predictions.path(run_dir, "validation"))
    with pytest.raises(InputError, match="is of test of d1, not of validation of d1"):
        kept_predictions.read(run_dir, "validation")
    kept_predictions.write(SCORED, run_dir, "test")
    _tell(run_dir, "test", SCORED, "d2")
    with pytest.raises(InputError, match=f"is of test of d1, not of test of d2{remedy}"):
        kept_predictions.read(run_dir, "test")
    _tell(run_dir, "test", dataclasses.replace(SCORED, logit=-SCORED.logit))
    with pytest.raises(
        InputError, match=rf"has an AUC of 0\.83.*, metrics\.json says 0\.16.*{remedy}"
    ):
        kept_predictions.read(run_dir, "test")
    _tell(run_dir, "validation", SCORED)
    with pytest.raises(InputError, match=f"metrics.json says None{remedy}"):
        kept_predictions.read(run_dir, "test")
    for damaged in (b"", b"[]", file.read_bytes()[:-40]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"predictions-test\.npz can't be read .*{remedy}"):
            kept_predictions.read(run_dir, "test")
