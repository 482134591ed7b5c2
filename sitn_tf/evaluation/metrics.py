"""Click-prediction metrics as pure NumPy functions: labels and scores in, numbers out.

Labels are 0 or 1, probabilities lie in [0, 1], all arrays are `[N]` unless said otherwise.
"""

import dataclasses

import numpy as np

PROBABILITY_FLOOR = 1e-7
CALIBRATION_BINS = 20

POPULARITY_WEIGHT = "popularity_weight"
"""Name, among the metrics of a split, of what popularity weighs in a scorer's logits."""


TITLES = {
    "gauc": "GAUC",
    "log_loss": "log loss",
    "normalised_entropy": "normalised entropy",
    "calibration_error": "calibration error",
}
"""What people call the metrics of `click_metrics` beside AUC, by name."""


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties counting half; NaN where only one class occurs.

    The Mann-Whitney statistic: the share of (positive, negative) pairs in the right order.
    """
    positives = float(np.sum(labels > 0))
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(np.sum(_average_ranks(scores)[labels > 0]))
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def gauc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Mean AUC over the groups (requests) that have both classes; NaN where none has.

    Args:
      groups: `[N]` integers, the request of each row.
    """
    order = np.lexsort((scores, groups))
    group, score, label = groups[order], scores[order], labels[order] > 0
    if not len(group):
        return float("nan")
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    number = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(group)]))
    ties = np.cumsum(np.r_[True, (score[1:] != score[:-1]) | (number[1:] != number[:-1])]) - 1
    rank = _mean_by(ties, np.arange(len(score)) - starts[number] + 1.0)[ties]
    size = np.bincount(number).astype(float)
    positives = np.bincount(number, label)
    pairs = positives * (size - positives)
    usable = pairs > 0
    if not usable.any():
        return float("nan")
    above = np.bincount(number, rank * label) - positives * (positives + 1) / 2
    return float(np.mean(above[usable] / pairs[usable]))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy in nats; probabilities are kept off 0 and 1 by 1e-7."""
    p = np.clip(probabilities.astype(np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return float(-np.mean(np.where(labels > 0, np.log(p), np.log1p(-p))))


def normalised_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Log loss over that of always predicting the base rate (He et al., ADKDD 2014).

    Below 1 is better than the base rate; NaN where only one class occurs.
    """
    rate = float(np.mean(labels > 0))
    if rate in (0.0, 1.0):
        return float("nan")
    return log_loss(labels, probabilities) / log_loss(labels, np.full(len(labels), rate))


@dataclasses.dataclass(frozen=True)
class CalibrationCurve:
    """Predictions in bins of weights as equal as equal predictions allow, ascending.

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


def calibration_curve(
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
    bins: int = CALIBRATION_BINS,
) -> CalibrationCurve:
    """Predicted against observed click rates.

    Args:
      weights: of the rows, `[N]`; all alike if None.
      bins: at most; rows of equal predictions share a bin, so that their order says nothing, and a
        bin that no prediction's middle falls into is left out.
    """
    weight = np.ones(len(probabilities)) if weights is None else weights
    _, equal = np.unique(probabilities, return_inverse=True)
    of_equal = np.bincount(equal, weight)
    middle = (np.cumsum(of_equal) - of_equal / 2) / weight.sum()
    number = np.minimum(middle * bins, bins - 1).astype(int)[equal]
    total = np.bincount(number, weight, minlength=bins)
    used = total > 0
    predicted = np.bincount(number, weight * probabilities, minlength=bins)[used] / total[used]
    observed = np.bincount(number, weight * (labels > 0), minlength=bins)[used] / total[used]
    return CalibrationCurve(predicted, observed, total[used] / total.sum())


def calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """`CalibrationCurve.error` of rows that weigh alike."""
    return calibration_curve(labels, probabilities, bins=bins).error


def click_metrics(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray
) -> dict[str, float]:
    """All metrics of a scored split, by name."""
    return {
        "auc": auc(labels, probabilities),
        "gauc": gauc(labels, probabilities, groups),
        "log_loss": log_loss(labels, probabilities),
        "normalised_entropy": normalised_entropy(labels, probabilities),
        "calibration_error": calibration_error(labels, probabilities),
    }


def _average_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal scores sharing their mean rank."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def _mean_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(group, values) / np.bincount(group)
