import math

import numpy as np
import pytest

from sitn_tf.evaluation import retrieval


def test_ranks_golden():
    # row 0: own 0.9 is the best; row 1: own 0.5 behind 0.8; row 2: own 0.4 ties.
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.4, 0.3, 0.4]])
    np.testing.assert_allclose(retrieval.own_ranks(scores), [1, 2, 1.5])


def test_an_instance_that_is_no_number_is_not_found_best():
    scores = np.array([[0.9, 0.1], [0.8, np.nan]])
    np.testing.assert_allclose(retrieval.own_ranks(scores), [1, np.nan])
    p = np.random.default_rng(0).normal(size=(50, 8))
    p[3] = np.nan
    assert math.isnan(retrieval.cross_domain_retrieval(p, p).rank_gain)


def test_equal_instances_are_worth_chance():
    retrieved = retrieval.cross_domain_retrieval(np.ones((101, 4)), np.ones((101, 4)))
    assert retrieved.median_rank == 51
    assert retrieved.recall == 0.0
    assert retrieved.chance == 10 / 101


def test_aligned_instances_are_found():
    p = np.random.default_rng(0).normal(size=(50, 8))
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    retrieved = retrieval.cross_domain_retrieval(p, p)
    assert (retrieved.recall, retrieved.median_rank, retrieved.users) == (1.0, 1.0, 50)


def test_measures_golden():
    # Ranks of the three scores' rows are 1, 2, 1.5, those of their columns 1, 1, 1.
    p_source = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.4, 0.3, 0.4]])
    retrieved = retrieval.cross_domain_retrieval(p_source, np.eye(3))
    assert retrieved.mrr == pytest.approx((1 + 1 / 2 + 1 / 1.5 + 3) / 6)
    gain = 1 - math.log(2 * 1.5) / 6 / (math.log(1 * 2 * 3) / 3)
    assert retrieved.rank_gain == pytest.approx(gain)


def test_rank_gain_of_random_instances_is_none():
    rng = np.random.default_rng(0)
    retrieved = retrieval.cross_domain_retrieval(*rng.normal(size=(2, 2000, 8)))
    assert retrieved.rank_gain == pytest.approx(0.0, abs=0.01)
    assert retrieved.recall == pytest.approx(retrieved.chance, abs=0.003)


def test_blocks_rank_every_user_among_the_others_of_its_block():
    rng = np.random.default_rng(0)
    p_source, p_target = rng.normal(size=(2, 25, 4))
    retrieved = retrieval.cross_domain_retrieval(p_source, p_target, at_once=12)
    parts = [
        retrieval.cross_domain_retrieval(p_source[i:j], p_target[i:j])
        for i, j in ((0, 9), (9, 17), (17, 25))
    ]
    assert retrieved.users == sum(part.users for part in parts) == 25
    for name in ("recall", "chance", "mrr"):
        expected = sum(part.users * getattr(part, name) for part in parts) / 25
        assert getattr(retrieved, name) == pytest.approx(expected), name
    assert 0 < retrieved.chance <= 1


def test_lift_golden():
    # Odds of 1 against odds of 1/9; with a chance of 1/4, a recall of 1/2 is 3 times its odds.
    assert retrieval.lift(0.5, 0.1) == pytest.approx(9.0)
    assert retrieval.lift(0.5, 0.25) == pytest.approx(3.0)
    assert retrieval.lift(0.1, 0.1) == pytest.approx(1.0)
    assert retrieval.lift(0.0, 0.1) == 0.0


def test_lift_where_odds_have_no_end():
    assert retrieval.lift(1.0, 0.1) == math.inf
    assert math.isnan(retrieval.lift(0.9, 1.0))  # as many users as places: nothing was judged
