import itertools
import math

import numpy as np
import pytest

from sitn_tf.evaluation.proximity import mean_nearest, proximity


def test_golden():
    # Directions at 0 and 90 degrees, of any length, against one at 90: the chord of 90 degrees is
    # sqrt 2, so the three nearest are at sqrt 2, 0 and 0.
    source, target = np.array([[2.0, 0.0], [0.0, 5.0]]), np.array([[0.0, 0.1]])
    found = proximity(source, target)
    assert found.distance == pytest.approx(math.sqrt(2) / 3)
    # Of the three deals of one target, the odd direction alone has sqrt 2 thrice.
    assert found.shuffled == pytest.approx(math.sqrt(2) / 3 * (2 / 3) + math.sqrt(2) / 3, rel=0.05)
    assert found.p == pytest.approx(2 / 3, abs=0.05)


def test_against_a_loop_over_every_deal():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    unit = [v / np.linalg.norm(v) for v in (*source, *target)]

    def mean(of_source):
        total = 0.0
        for i in range(6):
            others = [j for j in range(6) if (j in of_source) != (i in of_source)]
            total += min(np.linalg.norm(unit[i] - unit[j]) for j in others)
        return total / 6

    every = [mean(deal) for deal in itertools.combinations(range(6), 3)]
    found = proximity(source, target, draws=4000)
    assert found.distance == pytest.approx(mean((0, 1, 2)))
    assert found.shuffled == pytest.approx(np.mean(every), rel=0.01)
    assert found.p == pytest.approx(np.mean(np.array(every) <= every[0] + 1e-12), abs=0.03)


def test_pairs_lie_near_clouds_apart_and_one_cloud_as_dealt():
    rng = np.random.default_rng(2)
    some, other = rng.normal(size=(2, 64, 16))
    pairs = proximity(some, some + 0.05 * rng.normal(size=some.shape), draws=200)
    assert pairs.ratio < 0.2
    assert pairs.p == pytest.approx(1 / 201)
    clouds = proximity(some + 3, other - 3, draws=200)
    assert clouds.ratio > 1.3
    assert clouds.p == 1.0
    assert 0.95 < proximity(some, other, draws=200).ratio < 1.05


def test_neither_length_nor_rotation_nor_the_domains_order_matter():
    rng = np.random.default_rng(3)
    some, other = rng.normal(size=(2, 8, 4))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    distance = proximity(some, other, draws=1).distance
    assert proximity(3 * some @ turn, other @ turn, draws=1).distance == pytest.approx(distance)
    assert proximity(other, some, draws=1).distance == pytest.approx(distance)
    assert mean_nearest(np.array([[1.0, 2.0]])) == pytest.approx((1 + 1 + 2) / 3)
