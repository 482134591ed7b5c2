"""Reliability diagram: predicted probability against observed click rate, as an SVG."""

from collections.abc import Mapping

from sitn_tf import figures
from sitn_tf.evaluation.metrics import CalibrationCurve

SIZE = 360


def svg(curves: Mapping[str, CalibrationCurve], title: str) -> str:
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
