import math

import numpy as np
import pytest

from sitn_tf.evaluation import retrieval


def test_ranks_golden():
    # row 0: own 0.9 is the best; row 1: own 0.5 behind 0.8; row 2: own 0.4 ties.
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.4, 0.3, 0.4]])
    np.testing.assert_allclose(retrieval.own_ranks(scores), [1, 2, 1.5])


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


def test_lift_golden():
    # Odds of 1 against odds of 1/9; with a chance of 1/4, a recall of 1/2 is 3 times its odds.
    assert retrieval.lift(0.5, 0.1) == pytest.approx(9.0)
    assert retrieval.lift(0.5, 0.25) == pytest.approx(3.0)
    assert retrieval.lift(0.1, 0.1) == pytest.approx(1.0)
    assert retrieval.lift(0.0, 0.1) == 0.0


def test_lift_where_odds_have_no_end():
    assert retrieval.lift(1.0, 0.1) == math.inf
    assert math.isnan(retrieval.lift(0.9, 1.0))  # as many users as places: nothing was judged
