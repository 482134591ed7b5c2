"""Reliability diagram: predicted probability against observed click rate, as an SVG."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sitn_tf import figures
from sitn_tf.evaluation.metrics import CALIBRATION_BINS

SIZE = 360


@dataclasses.dataclass(frozen=True)
class Curve:
    """Bins of equal weight, by ascending prediction.

    Attributes:
      predicted, observed: `[bins]` mean prediction and click rate.
      weight: `[bins]` share of each bin, summing to 1.
    """

    predicted: np.ndarray
    observed: np.ndarray
    weight: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean |predicted - observed|."""
        return float(np.sum(self.weight * np.abs(self.predicted - self.observed)))


def curve(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, bins: int = CALIBRATION_BINS
) -> Curve:
    """Bins predictions into parts of equal weight.

    Args:
      labels, probabilities, weights: `[N]`; a negative that stands for r^-1 others weighs so.
    """
    order = np.argsort(probabilities, kind="stable")
    label, probability, weight = labels[order] > 0, probabilities[order], weights[order]
    part = np.minimum((np.cumsum(weight) - weight / 2) / weight.sum() * bins, bins - 1)
    number = part.astype(int)
    total = np.bincount(number, weight, minlength=bins)
    used = total > 0
    predicted = np.bincount(number, weight * probability, minlength=bins)[used] / total[used]
    observed = np.bincount(number, weight * label, minlength=bins)[used] / total[used]
    return Curve(predicted, observed, total[used] / total.sum())


def svg(curves: Mapping[str, Curve], title: str) -> str:
    """The diagram as an SVG file; axes from 0 to the largest value."""
    top = max(float(max(c.predicted.max(), c.observed.max())) for c in curves.values())
    top = max(top * 1.05, 1e-6)
    with figures.figure(SIZE, SIZE) as figure:
        axes = figure.subplots()
        axes.plot([0, top], [0, top], "--", color=figures.INK, alpha=0.4, linewidth=1)
        for name, curve in curves.items():
            label = f"{name}: error {curve.error:.4f}"
            axes.plot(curve.predicted, curve.observed, "o-", markersize=4, label=label)
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal", title=title)
        axes.set(xlabel="predicted probability", ylabel="observed click rate")
        axes.legend(loc="upper left")
        return figures.svg(figure, title, alone=True) + "\n"
