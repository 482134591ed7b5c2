import dataclasses

import numpy as np
import pytest

from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics, slices
from sitn_tf.evaluation.kept_predictions import Predictions


def _predictions(requests=200, candidates=4, seed=0, signal=1.0):
    """Requests of users of their own; every tenth has no click."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), candidates)
    label = (np.arange(len(request)) % candidates == 0) & (request % 10 > 0)
    return Predictions(
        request=request,
        candidate=np.tile(np.arange(2, 2 + candidates), requests) + request % 3,
        label=label.astype(int),
        logged_score=None,
        logit=(signal * label + np.random.default_rng(seed + 9).normal(size=len(label))).astype(
            np.float32
        ),
        user=rng.permutation(requests) * 7,
        source_length=np.arange(requests) % 25,
        target_length=np.arange(requests) % 3,
    )


@pytest.mark.parametrize(
    ("longest", "names"),
    [
        (30, ["0", "1–4", "5–9", "10–19", "20+"]),
        (20, ["0", "1–4", "5–9", "10–19", "20+"]),
        (19, ["0", "1–4", "5–9", "10+"]),
        (3, ["0", "1+"]),
    ],
)
def test_slices_of_lengths(longest, names):
    lengths = np.array([0, 1, 4, 5, 9, 10, 19, 20, 30])
    found = slices.by_length("target", np.minimum(lengths, longest), longest)
    assert found.names == names
    assert f"newest {longest} items" in found.note
    expected = np.minimum([0, 1, 1, 2, 2, 3, 3, 4, 4], len(names) - 1)
    np.testing.assert_array_equal(found.of_request, expected)


def test_slices_of_popularity():
    # Clicked items have 0, 3, 1, 3, 10, 2 and 50 clicks in training, the fifth request also one
    # with 7; the eighth request has no click. Quarters of 1 2 3 3 7 50: up to 2, to 3, to 7, above.
    clicks = np.array([0, 0, 0, 3, 1, 10, 2, 50, 7])
    scored = dataclasses.replace(
        _predictions(8, 2),
        request=np.array([0, 0, 1, 1, 2, 3, 4, 4, 4, 5, 6, 7, 7]),
        candidate=np.array([2, 7, 3, 2, 4, 3, 5, 8, 2, 6, 7, 4, 5]),
        label=np.array([1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0]),
    )
    found = slices.by_popularity(scored, clicks)
    assert found.names == ["0", "1–2", "3", "4–7", "8+", "no click"]
    assert found.of_request.tolist() == [0, 2, 1, 2, 3, 1, 4, 5]


def test_slices_of_items_that_are_equally_popular():
    scored = dataclasses.replace(_predictions(30), label=np.tile([1, 0, 0, 0], 30))
    found = slices.by_popularity(scored, np.full(20, 6))
    assert found.names == ["0", "1+"]
    assert set(found.of_request) == {1}
    unknown = slices.by_popularity(scored, np.zeros(20, int))
    assert (unknown.names, set(unknown.of_request)) == (["0", "1+"], {0})


def test_each_slice_has_its_requests_with_all_their_candidates():
    scored = [_predictions(), _predictions(signal=0.2)]
    slicing = slices.by_length("source", scored[0].source_length, 25)
    models = [[one] for one in scored]
    found = slices.compare_slices(models, slicing)
    assert [s.name for s in found] == list(slicing.names)
    assert sum(s.share for s in found) == pytest.approx(1)
    chosen = np.isin(scored[0].request % 25, range(5, 10))
    third = found[2].comparison
    assert third.requests == chosen.sum() / 4
    assert third.auc == [metrics.auc(s.label[chosen], s.logit[chosen]) for s in scored]
    whole = slices.compare_all(models)
    assert whole.requests == 200
    auc = [metrics.auc(s.label, s.probability) for s in scored]
    assert whole.auc == auc
    assert whole.gains[0].low > 0
    trained_twice = slices.compare_all([scored, scored[:1]])
    assert trained_twice.auc == pytest.approx([sum(auc) / 2, auc[0]])
    assert trained_twice.gains[0].value == pytest.approx((auc[1] - auc[0]) / 2)


def test_slices_without_requests_or_of_one_class_are_shown():
    scored = [_predictions(), _predictions(seed=1)]
    scored[1] = dataclasses.replace(scored[0], logit=scored[1].logit)
    found = slices.compare_slices(
        [[one] for one in scored], slices.by_popularity(scored[0], np.full(20, 4))
    )
    nothing, _, without_click = (s.comparison for s in found)
    assert (found[0].share, nothing.requests, nothing.enough) == (0, 0, False)
    assert (without_click.requests, without_click.enough) == (20, False)
    assert np.isnan(without_click.auc).all()


def test_runs_on_other_candidates_are_refused():
    scored = _predictions()
    other = dataclasses.replace(scored, candidate=scored.candidate[::-1])
    slices.check_same_candidates([scored, scored])
    with pytest.raises(InputError, match=r"differ in candidate: .*: evaluate all runs again"):
        slices.check_same_candidates([scored, scored, other])
