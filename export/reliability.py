"""Reliability diagram: predicted probability against observed click rate, as an SVG."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sitn_tf.evaluation.metrics import CALIBRATION_BINS

SIZE = 360
MARGIN = 48
_COLOURS = ("#c0504d", "#1f5fa8", "#4f8a3d")


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
    """The diagram as an SVG document; axes from 0 to the largest value."""
    top = max(float(max(c.predicted.max(), c.observed.max())) for c in curves.values())
    top = max(top * 1.05, 1e-6)

    def x(value: float) -> float:
        return MARGIN + value / top * SIZE

    def y(value: float) -> float:
        return MARGIN + (1 - value / top) * SIZE

    side = SIZE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{side}" height="{side}" fill="white"/>',
        f'<text x="{MARGIN}" y="20" font-size="13">{_escape(title)}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIZE}" height="{SIZE}" fill="none" '
        'stroke="#888"/>',
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(top)}" y2="{y(top)}" stroke="#aaa" '
        'stroke-dasharray="4 4"/>',
        f'<text x="{MARGIN + SIZE / 2}" y="{side - 10}" text-anchor="middle">'
        "predicted probability</text>",
        f'<text transform="translate(14 {MARGIN + SIZE / 2}) rotate(-90)" '
        'text-anchor="middle">observed click rate</text>',
    ]
    for tick in np.linspace(0, top, 5):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{y(0) + 14:.1f}" text-anchor="middle">{tick:.3g}</text>'
        )
        parts.append(
            f'<text x="{x(0) - 4:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        )
    for i, (name, line) in enumerate(curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        points = list(zip(line.predicted, line.observed, strict=True))
        path = " ".join(f"{x(p):.1f},{y(o):.1f}" for p, o in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x(p):.1f}" cy="{y(o):.1f}" r="3" fill="{colour}"/>'
                  for p, o in points]  # fmt: skip
        parts.append(
            f'<text x="{MARGIN + 10}" y="{MARGIN + 18 + 15 * i}" fill="{colour}">'
            f"{_escape(name)}: error {line.error:.4f}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
