import math

import numpy as np
import pytest

from sitn_tf.studies.significance import interval, paired_t_test


def test_interval_golden():
    # 1, 2, 3: mean 2, standard deviation 1, t(2) = 4.302653 over sqrt 3.
    mean, half = interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, half) == (2.0, pytest.approx(4.302653 / math.sqrt(3)))
    assert math.isnan(interval(np.array([1.0]))[1])


def test_paired_t_test_golden():
    # 1, 2, 3: t = 2 / (1 / sqrt 3) = sqrt 12; with 2 degrees of freedom the two tails of t are
    # 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12 / 14).
    p = paired_t_test(np.array([1.0, 2.0, 3.0]))
    assert p == pytest.approx(1 - math.sqrt(12 / 14))
    assert paired_t_test(np.array([-1.0, -2.0, -3.0])) == pytest.approx(p)
    # t = 0.
    assert paired_t_test(np.array([1.0, -1.0])) == pytest.approx(1.0)
    assert math.isnan(paired_t_test(np.array([1.0])))


def test_differences_without_a_spread_say_nothing():
    """0.1 three times has a mean of 0.10000000000000002, so a standard deviation of 1.7e-17."""
    assert paired_t_test(np.zeros(3)) == 1.0
    for value in (0.5, 0.1, -0.1):
        assert math.isnan(paired_t_test(np.full(3, value)))
    assert paired_t_test(np.array([0.1, 0.1001])) < 0.001


def test_p_falls_at_the_edge_of_the_interval():
    """The 95 % interval ends at 0 exactly where p is 0.05."""
    some = np.array([0.3, 0.1, 0.9, 0.4])
    mean, half = interval(some)
    assert paired_t_test(some - mean + half) == pytest.approx(0.05)
