"""Predictions of one model's trainings → a line of a calibration picture, and its error."""

from collections.abc import Sequence

import numpy as np

from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.pages.pictures import Bins


def pooled(name: str, trainings: Sequence[Predictions]) -> tuple[Bins, float]:
    """The curve of all trainings' predictions together, and the mean of their calibration errors.

    The error of the curve itself would be less: one training's may make up for another's.
    """
    labels = [scored.label for scored in trainings]
    probabilities = [scored.probability for scored in trainings]
    curve = metrics.calibration_curve(np.concatenate(labels), np.concatenate(probabilities))
    errors = map(metrics.calibration_error, labels, probabilities)
    return Bins(name, curve.predicted, curve.observed, curve.weight), float(np.mean([*errors]))
