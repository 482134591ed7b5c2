"""Calibration: fits recover what was planted, in NumPy and in the graph alike."""

import dataclasses
import json
import math
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from export import calibration as calibrations
from export import native, reliability, requests, verify
from export.calibration import Calibration
from export.exporting import export
from export.metadata import summary
from export.options import ExportOptions
from export.signatures import calibrated
from sitn_tf import runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics

CURVE = Calibration("isotonic", knots_x=(-2.0, 0.0, 3.0), knots_y=(-3.0, -1.0, -0.5), shift=-0.7)
LINE = Calibration("platt", slope=0.5, intercept=0.25, shift=-1.0)


def sampled_clicks(size=200_000, rate=0.1, seed=0):
    """True log-odds, and which rows remain when negatives are kept with probability `rate`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2.5, 1.0, size)
    labels = rng.random(size) < calibrations.sigmoid(true)
    kept = labels | (rng.random(size) < rate)
    return true, labels, kept


def test_the_shift_undoes_negative_sampling():
    true, labels, kept = sampled_clicks(rate=0.1)
    # What a perfect model of the sampled rows gives: odds raised by 1 / rate.
    learned = true - math.log(0.1)
    assert abs(calibrations.sigmoid(learned[kept]).mean() - labels[kept].mean()) < 0.005
    shifted = calibrations.apply(Calibration(shift=math.log(0.1)), learned)
    np.testing.assert_allclose(shifted, true)
    assert abs(calibrations.sigmoid(shifted).mean() - labels.mean()) < 0.002


def test_the_shift_after_sampling_by_popularity():
    """Each of 20 items is off by its share of the draws, and a fitted step does not see it."""
    rng = np.random.default_rng(0)
    items, per_click, clicks = 20, 4, 400_000
    rate = np.linspace(0.01, 0.09, items)  # sums to 1: which item a request's click is on
    share = rate**0.75 / (rate**0.75).sum()
    clicked = np.bincount(rng.choice(items, clicks, p=rate), minlength=items)
    drawn = np.bincount(rng.choice(items, per_click * clicks, p=share), minlength=items)
    learned = np.log(clicked / drawn)  # a perfect model of the sampled rows
    shifted = calibrations.apply(Calibration(shift=math.log(per_click / items)), learned)
    np.testing.assert_allclose(shifted - np.log(rate), -np.log(share * items), atol=0.03)
    logits = np.repeat(learned, clicked + drawn)
    labels = np.concatenate([[1.0] * c + [0.0] * d for c, d in zip(clicked, drawn, strict=True)])
    fitted = calibrations.fit("platt", logits, labels)
    assert (fitted.slope, fitted.intercept) == pytest.approx((1.0, 0.0), abs=1e-3)


def test_shift_of_the_manifest():
    assert calibrations.shift_of({"sampling_rate": 0.25}) == math.log(0.25)
    assert calibrations.shift_of({"kind": "impressions"}) == 0.0
    for rate in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"sampling_rate={rate} of the manifest is not in"):
            calibrations.shift_of({"sampling_rate": rate})


def test_platt_recovers_a_planted_line():
    true, labels, _ = sampled_clicks()
    fitted = calibrations.fit("platt", (true - 0.5) / 2.0, labels)
    assert fitted.slope == pytest.approx(2.0, abs=0.05)
    assert fitted.intercept == pytest.approx(0.5, abs=0.05)


def test_platt_on_separable_and_on_one_sided_labels_is_finite():
    for labels in (np.array([0, 0, 1, 1]), np.zeros(4), np.ones(4)):
        fitted = calibrations.fit("platt", np.array([-2.0, -1.0, 1.0, 2.0]), labels)
        assert np.isfinite([fitted.slope, fitted.intercept]).all()
        assert fitted.slope > 0


def test_a_scorer_worse_than_chance_is_not_turned_over():
    fitted = calibrations.fit("platt", np.array([3.0, 2, -2, -3] * 50), np.array([0, 0, 1, 1] * 50))
    assert fitted.slope == calibrations.MIN_PLATT_SLOPE


def test_isotonic_straightens_a_bent_curve():
    true, labels, _ = sampled_clicks()
    bent = np.cbrt(true)
    fitted = calibrations.fit("isotonic", bent, labels)
    before = metrics.calibration_error(labels, calibrations.sigmoid(bent))
    after = metrics.calibration_error(
        labels, calibrations.sigmoid(calibrations.apply(fitted, bent))
    )
    assert before > 0.05
    assert after < 0.005
    assert len(fitted.knots_x) <= calibrations.MAX_KNOTS


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 1)), min_size=2, max_size=60))
def test_a_fitted_curve_ties_no_two_scores(rows):
    logits, labels = (np.array(column, float) for column in zip(*rows, strict=True))
    fitted = calibrations.fit("isotonic", logits, labels)
    mapped = calibrations.apply(fitted, np.linspace(-12, 12, 200))
    assert (np.diff(mapped) > 0).all()


def test_pool_adjacent_violators_golden():
    # x:      1  2  3  4  5
    # labels: 1  0  0  1  1   the first three pool to 1/3, the last two stay at 1 (equal: pooled)
    x, rate, size = calibrations.pool_adjacent_violators(
        np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 0, 0, 1, 1])
    )
    np.testing.assert_allclose(x, [2.0, 4.5])
    np.testing.assert_allclose(rate, [1 / 3, 1.0])
    np.testing.assert_allclose(size, [3, 2])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 1)), min_size=1, max_size=30))
def test_pooled_blocks_increase_and_keep_the_total(rows):
    rows.sort()
    x, labels = (np.array(column, float) for column in zip(*rows, strict=True))
    centre, rate, size = calibrations.pool_adjacent_violators(x, labels)
    assert (np.diff(rate) > 0).all()
    assert (np.diff(centre) > 0).all()
    assert size.sum() == len(rows)
    assert (rate * size).sum() == pytest.approx(labels.sum())


@settings(max_examples=50)
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20),
    st.sampled_from([Calibration(), Calibration(shift=-2.0), LINE, CURVE]),
)
def test_the_graph_maps_as_numpy_and_keeps_the_order(logits, calibration):
    x = np.sort(np.float32(logits))
    expected = calibrations.apply(calibration, x)
    found = calibrated(tf.constant(x[None, :]), calibration).numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-6)
    assert (np.diff(expected) >= 0).all()


def test_a_calibration_is_read_back_from_json():
    for calibration in (LINE, CURVE, Calibration()):
        stored = json.loads(json.dumps(calibration.to_dict()))
        assert Calibration(**stored).to_dict() == json.loads(json.dumps(calibration.to_dict()))
    with pytest.raises(ValueError, match="kind='beta' is not one of: none, platt, isotonic"):
        Calibration("beta")
    with pytest.raises(ValueError, match="1 knots_x for 0 knots_y"):
        Calibration("isotonic", knots_x=(1.0,))


def test_reliability_curve_golden():
    # Two bins of weight 2: predictions 0.1 and 0.3, then 0.6 and 0.8.
    curve = metrics.calibration_curve(
        np.array([0, 1, 1, 1]), np.array([0.1, 0.8, 0.3, 0.6]), np.ones(4), bins=2
    )
    np.testing.assert_allclose(curve.predicted, [0.2, 0.7])
    np.testing.assert_allclose(curve.observed, [0.5, 1.0])
    assert curve.error == pytest.approx(0.5 * 0.3 + 0.5 * 0.3)


def test_reliability_weighs_negatives_by_those_they_stand_for():
    true, labels, kept = sampled_clicks(rate=0.2)
    weights = np.where(labels[kept], 1.0, 1 / 0.2)
    assert (
        metrics.calibration_curve(labels[kept], calibrations.sigmoid(true[kept]), weights).error
        < 0.005
    )
    ours = metrics.calibration_curve(labels, calibrations.sigmoid(true), np.ones(len(true)))
    drawn = reliability.svg({"a < b": ours, "c": ours}, "t & u")
    assert f">a &lt; b: error {ours.error:.4f}</text>" in drawn


@pytest.fixture
def sampled_run(run_dir, tmp_path):
    """A run on sampled negatives whose data set is not where it was; and the data set."""
    copied = shutil.copytree(run_dir, tmp_path / "stage2")
    info = runs.read_info(copied)
    whole_files.write_json(
        copied / runs.RUN_FILE, {**dataclasses.asdict(info), "data_dir": str(tmp_path / "gone")}
    )
    write_sampling_rate(copied, 0.5)
    return copied, pathlib.Path(info.data_dir)


def write_sampling_rate(run_dir, rate):
    manifest = runs.read_json(run_dir / schema.MANIFEST_FILE, None)
    manifest["negatives"] = {"kind": "sampled", "sampling_rate": rate}
    whole_files.write_json(run_dir / schema.MANIFEST_FILE, manifest)


@pytest.mark.parametrize("kind", [pytest.param("platt", marks=pytest.mark.slow), "isotonic"])
def test_a_calibrated_export_serves_calibrated_scores(sampled_run, tmp_path, kind):
    run_dir, data_dir = sampled_run
    options = ExportOptions(calibrate=kind, goldens=64)
    with pytest.raises(InputError, match=rf"calibrate={kind} needs the data set .* give data_dir="):
        export(run_dir, tmp_path / "servable", options)
    options = dataclasses.replace(options, data_dir=data_dir)
    made, metadata = export(run_dir, tmp_path / "servable", options)
    assert metadata["calibration"]["kind"] == kind
    assert metadata["calibration"]["shift"] == pytest.approx(math.log(0.5))
    measured = metadata["measured"]
    assert measured["calibration_error_after"] < measured["calibration_error_before"]
    asked = requests.Request(("s2",), ("t3",), ("t2", "t4"))
    with native.Session(made) as session:
        assert all(d.passes for d in verify.replay_goldens(session, made).values())
        found = session.run("score", requests.score_inputs([asked]))
    np.testing.assert_allclose(
        found["ctr"], calibrations.sigmoid(found["logit"]), rtol=1e-5, atol=1e-7
    )


def test_a_bad_sampling_rate_and_a_missing_data_set(sampled_run, tmp_path):
    run_dir, _ = sampled_run
    write_sampling_rate(run_dir, 0.0)
    with pytest.raises(InputError, match=r"sampling_rate=0\.0 .* give undo_sampling=False"):
        export(run_dir, tmp_path / "servable")
    options = ExportOptions(undo_sampling=False, goldens=64)
    _, metadata = export(run_dir, tmp_path / "servable", options)
    assert metadata["calibration"]["shift"] == 0.0
    assert metadata["measured"] is None
    assert "AUC and calibration not measured: data_dir=" in summary(metadata)
    with pytest.raises(InputError, match=r"^calibrate=platt needs the data set of the run: data_"):
        export(run_dir, tmp_path / "servable", dataclasses.replace(options, calibrate="platt"))


def test_the_error_is_that_of_evaluation():
    rng = np.random.default_rng(0)
    probabilities = rng.random(8_300) / 2
    labels = (rng.random(8_300) < probabilities).astype(int)
    found = metrics.calibration_curve(labels, probabilities, np.ones(8_300)).error
    assert found == pytest.approx(metrics.calibration_error(labels, probabilities))
