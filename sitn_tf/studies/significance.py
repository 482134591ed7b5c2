"""Scores of two arms with the same seeds → an interval and a p-value."""

import math

import numpy as np

ROUNDING = 1e-12
"""Differences of scores around 1 that are closer to each other are the same."""


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of Student's t; NaN for one difference.

    Args:
      differences: `[seeds]`, of an arm and the baseline with the same seed.
    """
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    if n < 2:
        return mean, math.nan
    from scipy import stats  # takes a second, which a command has not that only checks its flags

    quantile = stats.t.ppf(0.975, df=n - 1)
    return mean, float(quantile * np.std(differences, ddof=1) / math.sqrt(n))


def paired_t_test(differences: np.ndarray) -> float:
    """Two-sided p-value of differences `[seeds]` whose mean is 0; NaN for fewer than two.

    Differences that are all the same, but for rounding, have no spread to judge by: p is 1 where
    they are 0, else NaN.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    if np.ptp(differences) <= ROUNDING:
        return math.nan if abs(differences[0]) > ROUNDING else 1.0
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(n)
    from scipy import stats

    return float(2 * stats.t.sf(abs(mean / error), df=n - 1))
