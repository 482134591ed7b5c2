"""Logits of a trained scorer → log-odds that can be read as click rates.

Training on a click and N of its unclicked alternatives raises the odds of a click by the
inverse of the share r that was kept: adding log r undoes it exactly where every alternative
was kept with the same chance (uniform sampling, or impressions thinned at random). Where
alternatives were drawn by popularity^power, an item of share q in the draws kept its chance
N q and not r: log r is then right on average over the draws, while the odds of an item are
off by 1 / (q * alternatives), too low for popular items and too high for rare ones.

An optional step fitted on the validation split (Platt's line or an isotonic curve) comes
before the shift. It mends a scorer that is too sure of itself, whichever way negatives were
drawn, and is worth its while where the calibration error of the export's report is large.
It cannot mend the popularity: the validation split is drawn the same way. Probabilities
that are to be right item by item need impressions. All maps are strictly increasing: no
ranking changes.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

Kind = Literal["none", "platt", "isotonic"]
KINDS: tuple[Kind, ...] = ("none", "platt", "isotonic")

MAX_KNOTS = 64
MIN_PLATT_SLOPE = 1e-3
MIN_CURVE_SLOPE = 0.05
NEWTON_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Calibration:
    """An increasing map of logits: the fitted step, then the shift.

    Attributes:
      kind: which step was fitted.
      slope, intercept: of the line (kind "platt"; 1 and 0 mean no change).
      knots_x, knots_y: the curve (kind "isotonic"): straight between knots, of slope 1
        outside them, so that it never ties two scores beyond what was seen.
      shift: added last; log of the share of negatives kept.
    """

    kind: Kind = "none"
    slope: float = 1.0
    intercept: float = 0.0
    knots_x: tuple[float, ...] = ()
    knots_y: tuple[float, ...] = ()
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of: {', '.join(KINDS)}")
        if len(self.knots_x) != len(self.knots_y):
            raise ValueError(f"{len(self.knots_x)} knots_x for {len(self.knots_y)} knots_y")
        if self.kind == "isotonic" and not self.knots_x:
            raise ValueError("an isotonic calibration needs at least one knot")

    @property
    def is_identity(self) -> bool:
        return self.kind == "none" and self.shift == 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


IDENTITY = Calibration()


def shift_of(negatives: dict[str, Any]) -> float:
    """Log of the manifest's sampling rate; 0 where every alternative was kept or it is absent.

    Raises:
      ValueError: a rate outside (0, 1].
    """
    rate = float(negatives.get("sampling_rate", 1.0))
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"sampling_rate={rate} of the manifest is not in (0, 1]")
    return math.log(rate)


def fit(kind: Kind, logits: np.ndarray, labels: np.ndarray, shift: float = 0.0) -> Calibration:
    """Fits the step on logits and labels as sampled; `shift` is passed on.

    Args:
      logits: `[N]` float.
      labels: `[N]` 0 or 1.
    """
    if kind == "platt":
        slope, intercept = _fit_line(logits.astype(np.float64), labels.astype(np.float64))
        return Calibration("platt", slope, intercept, shift=shift)
    if kind == "isotonic":
        x, y = _fit_curve(logits.astype(np.float64), labels.astype(np.float64))
        return Calibration("isotonic", knots_x=tuple(x), knots_y=tuple(y), shift=shift)
    return Calibration(shift=shift)


def apply(calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    """The calibrated logits, float64, any shape."""
    x = np.asarray(logits, np.float64)
    if calibration.kind == "platt":
        x = calibration.slope * x + calibration.intercept
    elif calibration.kind == "isotonic":
        knots_x, knots_y = np.array(calibration.knots_x), np.array(calibration.knots_y)
        x = np.interp(x, knots_x, knots_y) + np.minimum(x - knots_x[0], 0)
        x += np.maximum(np.asarray(logits, np.float64) - knots_x[-1], 0)
    return x + calibration.shift


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Without overflow, float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def _fit_line(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Platt's slope and intercept: logistic regression by Newton's method.

    Targets are drawn in from 0 and 1 as Platt (1999) does, so that separable data has a
    finite answer.
    """
    positives = labels.sum()
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(labels) - positives + 2)
    target = np.where(labels > 0, high, low)
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    line = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = sigmoid(features @ line)
        gradient = features.T @ (p - target)
        hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        line -= step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    # A scorer worse than chance would be turned over: rankings are never reversed here.
    return max(float(line[0]), MIN_PLATT_SLOPE), float(line[1])


def _fit_curve(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the isotonic regression: block means, as log-odds, at block centres."""
    order = np.argsort(logits, kind="stable")
    x, rate, weight = pool_adjacent_violators(logits[order], labels[order])
    if len(x) > MAX_KNOTS:
        groups = np.array_split(np.arange(len(x)), MAX_KNOTS)
        x = np.array([np.average(x[g], weights=weight[g]) for g in groups])
        rate = np.array([np.average(rate[g], weights=weight[g]) for g in groups])
        weight = np.array([weight[g].sum() for g in groups])
    # Half an event either way keeps a block without clicks off log-odds of minus infinity.
    smoothed = (rate * weight + 0.5) / (weight + 1.0)
    y = np.log(smoothed) - np.log1p(-smoothed)
    # Flat steps would tie scores that the model tells apart: seen to cost 0.002 of AUC.
    tilt = MIN_CURVE_SLOPE * x
    return x, np.maximum.accumulate(y - tilt) + tilt


def pool_adjacent_violators(
    x: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Isotonic regression of labels on sorted x.

    Returns:
      Mean x, mean label (strictly increasing) and size of each block.
    """
    from scipy.optimize import isotonic_regression

    distinct, inverse = np.unique(x, return_inverse=True)
    sums, sizes = np.bincount(inverse, labels), np.bincount(inverse).astype(float)
    starts = isotonic_regression(sums / sizes, weights=sizes).blocks[:-1]
    rates = np.add.reduceat(sums, starts) / np.add.reduceat(sizes, starts)
    starts = starts[np.diff(rates, prepend=-np.inf) > 0]  # by rounding, equal blocks stay apart
    size = np.add.reduceat(sizes, starts)
    centre = np.add.reduceat(distinct * sizes, starts) / size
    return centre, np.add.reduceat(sums, starts) / size, size
