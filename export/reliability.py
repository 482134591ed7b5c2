"""Reliability diagram: predicted probability against observed click rate, as an SVG."""

from collections.abc import Mapping

from sitn_tf.evaluation.metrics import CalibrationCurve
from sitn_tf.pages.pictures import Bins, calibration


def svg(curves: Mapping[str, CalibrationCurve], title: str) -> str:
    """The diagram as an SVG file; the legend has each curve's calibration error."""
    bins = [
        Bins(f"{name}: error {curve.error:.4f}", curve.predicted, curve.observed, curve.weight)
        for name, curve in curves.items()
    ]
    return calibration(title, bins, alone=True).svg + "\n"
