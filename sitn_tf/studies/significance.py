"""Scores of two arms with the same seeds → an interval, a p-value, and p-values of many arms."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of Student's t; NaN for one difference.

    Args:
      differences: `[seeds]`, of an arm and the baseline with the same seed.
    """
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    if n < 2:
        return mean, math.nan
    quantile = stats.t.ppf(0.975, df=n - 1)
    return mean, float(quantile * np.std(differences, ddof=1) / math.sqrt(n))


def paired_t_test(differences: np.ndarray) -> float:
    """Two-sided p-value of differences `[seeds]` whose mean is 0; NaN for fewer than two.

    Differences that are all the same have no spread to judge by: p is 1 where they are 0, else 0.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(n)
    if not error:
        return float(not mean)
    return float(2 * stats.t.sf(abs(mean / error), df=n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold together, by Holm's step-down correction (1979), in the order given.

    The smallest of m counts m times, the next m - 1 times and so on, none less than one before
    it nor above 1. NaNs stay, and count as no test.
    """
    corrected = [math.nan] * len(p_values)
    tests = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for before, (p, place) in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - before) * p))
        corrected[place] = highest
    return corrected
