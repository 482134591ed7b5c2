"""Two and more scorers on the same candidates → differences of AUC, by a paired bootstrap of users.

A user's requests stay together: they resemble each other, and intervals that took them for
independent would be too narrow. Each draw takes as many users as there are, with replacement, and
all scorers are judged on the same draw. What is drawn are multiplicities; the candidates are
sorted once.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from sitn_tf.pages.pictures import signed

DRAWS = 2000
SEED = 0
COVERAGE = 0.95
SIGNIFICANT = 0.05
"""P-values below it, corrected where there are several, are told as more than chance."""
FEW_USERS = 30
"""Below so many users with a click, or without one, no interval is told: draws would hardly
differ from the sample's own oddities."""


class RankedCandidates:
    """Candidates in the order of a score: AUC for any weights of their users, in O(N).

    Args:
      labels: `[N]`, 0 or 1.
      scores: `[N]`.
      users: `[N]` integers below U, whose candidate each is.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> None:
        clicked = labels > 0
        negatives = np.argsort(scores[~clicked], kind="stable")
        in_order = scores[~clicked][negatives]
        self._positive_users = users[clicked]
        self._negative_users = users[~clicked][negatives]
        self._below = np.searchsorted(in_order, scores[clicked], "left")
        self._not_above = np.searchsorted(in_order, scores[clicked], "right")

    def auc(self, weights: np.ndarray) -> float:
        """`metrics.auc` where each candidate is there as often as its user.

        Args:
          weights: `[U]` float64, how often.

        Returns:
          NaN where only one class is left.
        """
        negatives = np.zeros(len(self._negative_users) + 1)
        np.cumsum(weights[self._negative_users], out=negatives[1:])
        positives = weights[self._positive_users]
        pairs = positives.sum() * negatives[-1]
        if not pairs:
            return float("nan")
        beaten = negatives[self._below] + negatives[self._not_above]  # ties count half
        return float(positives @ beaten / (2 * pairs))


@dataclasses.dataclass(frozen=True)
class Gain:
    """A difference of AUC.

    Attributes:
      value: of the sample itself; NaN where only one class occurs.
      low, high: 95 % interval, the draws' quantiles; NaN where there are too few users.
      p: two-sided, of no difference: twice the share of draws on the other side of 0 (or on it),
        the sample itself counted as one of them; NaN as above.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def hurts(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    @property
    def told(self) -> str:
        """The value and, where there is one, its interval."""
        if math.isnan(self.low):
            return signed(self.value)
        return f"{signed(self.value)} ({signed(self.low)} to {signed(self.high)})"


@dataclasses.dataclass(frozen=True)
class Judged:
    """Trainings of scorers on the same candidates, and on the same draws of their users.

    Attributes:
      requests, users: how many there are.
      enough: whether there are FEW_USERS users with a click, and as many without one.
      auc: `[M]`, of each training.
      drawn: `[draws, M]`, the same of each draw; no draw where there are not enough users.
    """

    requests: int
    users: int
    enough: bool
    auc: np.ndarray
    drawn: np.ndarray

    def gain(self, of: Sequence[int], over: Sequence[int]) -> Gain:
        """Of the mean AUC of some trainings over that of others, by their numbers."""
        value = self.auc[of].mean() - self.auc[over].mean()
        return _gain(value, self.drawn[:, of].mean(axis=1) - self.drawn[:, over].mean(axis=1))


def judge(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    requests: np.ndarray,
    users: np.ndarray,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Judged:
    """AUC, pooled over the candidates as by `metrics.auc`, of M trainings.

    Args:
      labels: `[N]`, 0 or 1.
      scores: `[N]` of each training.
      requests, users: `[N]` integers, the request and the user of each candidate.
    """
    names, user = np.unique(users, return_inverse=True)
    ranked = [RankedCandidates(labels, score, user) for score in scores]
    once = np.ones(len(names))
    by_class = [len(np.unique(user[labels > 0])), len(np.unique(user[labels <= 0]))]
    enough = min(by_class) >= FEW_USERS
    drawn = np.full((draws if enough else 0, len(scores)), np.nan)
    rng = np.random.default_rng(seed)
    for row in drawn:
        weights = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        row[:] = [scorer.auc(weights.astype(np.float64)) for scorer in ranked]
    return Judged(
        requests=len(np.unique(requests)),
        users=len(names),
        enough=enough,
        auc=np.array([scorer.auc(once) for scorer in ranked]),
        drawn=drawn,
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Scorers beside each other on the same candidates.

    Attributes:
      requests, users, enough: as in `Judged`.
      auc: of each scorer, the mean over its trainings.
      gains: of the first scorer over each other one.
    """

    requests: int
    users: int
    enough: bool
    auc: list[float]
    gains: list[Gain]


def compare(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    requests: np.ndarray,
    users: np.ndarray,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Comparison:
    """Gains in mean AUC of one scorer over others.

    Args:
      scores: `[N]` of each scorer, the judged one first; `[S, N]` of one that was trained S times.
      labels, requests, users: see `judge`.
    """
    trained = [np.atleast_2d(of_scorer) for of_scorer in scores]
    found = judge(labels, [row for rows in trained for row in rows], requests, users, draws, seed)
    ends = np.cumsum([0, *map(len, trained)])
    first, *others = [range(*pair) for pair in itertools.pairwise(ends.tolist())]
    return Comparison(
        requests=found.requests,
        users=found.users,
        enough=found.enough,
        auc=[float(found.auc[numbers].mean()) for numbers in (first, *others)],
        gains=[found.gain(first, other) for other in others],
    )


def _gain(value: float, drawn: np.ndarray) -> Gain:
    """Of the sample's difference, and those of the draws."""
    if not len(drawn):
        return Gain(float(value), *[float("nan")] * 3)
    outside = (1 - COVERAGE) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
    return Gain(float(value), float(low), float(high), float(p))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction (1979) of p values for how many they are; NaN, of no test, stays NaN.

    Args:
      p: `[M]`.

    Returns:
      `[M]`: below `SIGNIFICANT` where the difference would be found by chance, among all of them,
      at most once in twenty times.
    """
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # NaN comes last
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected
