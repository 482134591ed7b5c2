import math

import numpy as np
import pytest

from sitn_tf.evaluation import comparison, metrics
from sitn_tf.evaluation.comparison import RankedCandidates, compare, holm


def _sample(requests=60, users=40, candidates=5, seed=1):
    """Labels, scores of three scorers (the second worse than the first), requests, users."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), candidates)
    user = rng.integers(users, size=requests)[request] * 1000  # keys, not numbers
    label = (np.arange(len(request)) % candidates == 0).astype(int)
    good = np.round(label + rng.normal(size=len(label)), 1)  # many ties
    bad = np.round(0.3 * label + rng.normal(size=len(label)), 1)
    return label, [good, bad, good], request, user


def test_auc_with_multiplicities_is_that_of_repeated_rows():
    label, (score, *_), _, user = _sample()
    rng = np.random.default_rng(0)
    number = np.unique(user, return_inverse=True)[1]
    ranked = RankedCandidates(label, score, number)
    for _ in range(5):
        weights = rng.integers(3, size=number.max() + 1)
        repeated = np.repeat(np.arange(len(label)), weights[number])
        expected = metrics.auc(label[repeated], score[repeated])
        assert ranked.auc(weights.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_auc_golden():
    # Two of u, one of v. Positives: u 0.5 (twice), negatives u 0.5 (twice), v 0.7, so 1/2 of the
    # pair with u counts and that with v does not: 2 (2/2 + 0) / (2 * 3) = 1/3.
    ranked = RankedCandidates(np.array([1, 0, 0]), np.array([0.5, 0.5, 0.7]), np.array([0, 0, 1]))
    assert ranked.auc(np.array([2.0, 1.0])) == pytest.approx(1 / 3)
    assert math.isnan(ranked.auc(np.array([0.0, 1.0])))


def test_a_comparison_is_that_of_a_slow_loop():
    label, scores, request, user = _sample()
    found = compare(label, scores, request, user, draws=200, seed=7)
    names, rng = np.unique(user), np.random.default_rng(7)
    gains = []
    for _ in range(200):
        chosen = rng.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(user == names[u]) for u in chosen])
        auc = [metrics.auc(label[rows], score[rows]) for score in scores]
        gains.append([auc[0] - auc[1], auc[0] - auc[2]])
    assert (found.requests, found.users, found.enough) == (60, len(names), True)
    assert found.auc == pytest.approx([metrics.auc(label, score) for score in scores])
    first, second = found.gains
    low, high = np.quantile(np.array(gains)[:, 0], [0.025, 0.975])
    assert (first.low, first.high) == pytest.approx((low, high))
    below = sum(gain <= 0 for gain, _ in gains)
    assert first.p == pytest.approx(2 * (1 + below) / 201)
    assert first.value == pytest.approx(found.auc[0] - found.auc[1])
    assert 0 < first.low < first.value < first.high
    assert (second.value, second.low, second.high, second.p) == (0, 0, 0, 1)  # the same scorer


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of two scorers that are equally good, on candidates whose users differ a lot."""
    hurt = helped = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(60), 4)
        label = np.tile([1, 0, 0, 0], 60)
        taste = rng.normal(size=(2, 60))[:, user]
        scores = [label * (0.5 + taste[k]) + rng.normal(size=240) for k in range(2)]
        (gain,) = compare(label, scores, user, user, draws=200).gains
        hurt += gain.hurts
        helped += gain.low > 0
    assert 1 <= hurt <= 12  # 5 of 200 expected on each side
    assert 1 <= helped <= 12


def test_order_and_names_change_nothing():
    label, scores, request, user = _sample()
    found = compare(label, scores, request, user, draws=50)
    order = np.random.default_rng(3).permutation(len(label))
    shuffled = compare(label[order], [s[order] for s in scores], request[order], user[order], 50)
    assert shuffled.gains == found.gains
    monotone = compare(label, [np.exp(s) for s in scores], request + 9, user * 2 + 1, 50)
    assert monotone.gains == found.gains


def test_the_other_way_round_is_the_same_with_other_signs():
    label, scores, request, user = _sample()
    (gain,) = compare(label, scores[:2], request, user, draws=99).gains
    (loss,) = compare(label, scores[1::-1], request, user, draws=99).gains
    found = (-loss.value, -loss.high, -loss.low, loss.p)
    assert found == pytest.approx((gain.value, gain.low, gain.high, gain.p))


def test_few_users_and_one_class_have_no_interval():
    label, scores, request, user = _sample(users=20)
    few = compare(label, scores, request, user)
    assert few.users < comparison.FEW_USERS
    assert not few.enough
    gain = few.gains[0]
    assert gain.value == pytest.approx(few.auc[0] - few.auc[1])
    assert all(map(math.isnan, (gain.low, gain.high, gain.p)))
    assert not gain.hurts
    label, scores, request, user = _sample()
    one_class = compare(np.zeros_like(label), scores, request, user)
    assert not one_class.enough
    assert math.isnan(one_class.auc[0])
    assert math.isnan(one_class.gains[0].value)
    nothing = compare(*(np.zeros(0, int), [np.zeros(0)] * 2), np.zeros(0, int), np.zeros(0, int))
    assert (nothing.requests, nothing.users, nothing.enough) == (0, 0, False)


def test_holm_golden():
    # Of four: 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.5 * 1, none below one before it.
    found = holm(np.array([0.03, 0.5, math.nan, 0.01, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.5, math.nan, 0.04, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
