"""Predictions of one model's trainings → a line of a calibration picture, and its error."""

from collections.abc import Sequence

import numpy as np

from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.pages.pictures import Bins


def pooled(name: str, trainings: Sequence[Predictions]) -> tuple[Bins, float]:
    """The curve of all trainings' predictions together, and its mean difference (ECE)."""
    curve = metrics.calibration_curve(
        np.concatenate([scored.label for scored in trainings]),
        np.concatenate([scored.probability for scored in trainings]),
    )
    return Bins(name, curve.predicted, curve.observed, curve.weight), curve.error
