import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitn_tf.evaluation import metrics


def _auc_by_pairs(labels, scores):
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p, label in zip(scores, labels, strict=True)
        if label
        for n, other in zip(scores, labels, strict=True)
        if not other
    ]
    return sum(pairs) / len(pairs) if pairs else float("nan")


def test_auc_golden():
    # positives 0.9, 0.4; negatives 0.5, 0.4: pairs 1, 1, 0, 1/2 → 2.5 / 4.
    labels, scores = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.5, 0.4])
    assert metrics.auc(labels, scores) == pytest.approx(0.625)


def test_auc_of_one_class_is_nan():
    assert math.isnan(metrics.auc(np.array([1, 1]), np.array([0.1, 0.2])))


def test_gauc_golden():
    # request 0: AUC 1; request 1: AUC 0; request 2 has one class and does not count.
    labels = np.array([1, 0, 1, 0, 1])
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.5])
    assert metrics.gauc(labels, scores, np.array([0, 0, 1, 1, 2])) == pytest.approx(0.5)


def test_log_loss_and_normalised_entropy_golden():
    # -(log 0.5 + log 0.75) / 2; the base rate 1/2 gives log 2.
    labels, p = np.array([1, 0]), np.array([0.5, 0.25])
    expected = -(math.log(0.5) + math.log(0.75)) / 2
    assert metrics.log_loss(labels, p) == pytest.approx(expected)
    assert metrics.normalised_entropy(labels, p) == pytest.approx(expected / math.log(2))
    assert metrics.normalised_entropy(labels, np.array([0.5, 0.5])) == pytest.approx(1.0)


def test_calibration_error_golden():
    # two bins: (0.1, 0.3) with no click: 0.2 too high on average; (0.6, 0.8) with two: 0.3 low.
    labels, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.6, 0.3, 0.8])
    assert metrics.calibration_error(labels, p, bins=2) == pytest.approx((0.4 + 0.6) / 4)


@pytest.mark.parametrize("clicks_first", [True, False])
def test_equal_predictions_share_a_bin_whatever_the_order_of_their_rows(clicks_first):
    # 40 rows at 0.5, half of them clicked: no error. Then 10 at 0.9 with 9 clicks: none either.
    clicks = np.repeat([1, 0], [20, 20]), np.repeat([1, 0], [9, 1])
    labels = np.concatenate([part if clicks_first else part[::-1] for part in clicks])
    curve = metrics.calibration_curve(labels, np.repeat([0.5, 0.9], [40, 10]))
    np.testing.assert_allclose(curve.observed, [0.5, 0.9])
    np.testing.assert_allclose(curve.weight, [0.8, 0.2])
    assert curve.error == pytest.approx(0)


cases = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40
)


@settings(max_examples=200)
@given(cases)
def test_auc_and_gauc_equal_counting_pairs(rows):
    labels, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(metrics.auc(labels, scores), _auc_by_pairs(labels, scores))
    each = [
        _auc_by_pairs(labels[groups == group], scores[groups == group]) for group in set(groups)
    ]
    usable = [value for value in each if not math.isnan(value)]
    expected = np.mean(usable) if usable else float("nan")
    np.testing.assert_allclose(metrics.gauc(labels, scores, groups), expected)
