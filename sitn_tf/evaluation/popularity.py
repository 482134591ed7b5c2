"""A scored split → how much candidates' popularity is to add to their logits (model.popularity).

Fitted to validation requests, not learned: counts of the training period hold a training request's
own click, so that a gradient would learn them by heart. Negatives drawn by popularity turn its
worth around, which says how they were drawn and nothing of what will be shown: no weight below 0.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sitn_tf.data import Batch
from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.predictions import Predictions, predict
from sitn_tf.layers.popularity import NOTHING
from sitn_tf.models.scorer import Scorer

RIDGE = 1e-6
"""Of the mean loss, by standardised columns: where clicks are separable, a fit still ends."""
STEPS = 100
HALVINGS = 30
TOLERANCE = 1e-12

Objective = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]
"""Parameters `[P]` → a convex loss, its gradient `[P]` and its Hessian `[P, P]`."""


def fit_and_predict(
    scorer: Scorer, batches: tf.data.Dataset, score: Callable[[Batch], tf.Tensor]
) -> Predictions:
    """`predict`, and on the way the scorer's popularity, if it has any, is fitted to the split.

    Args:
      score: the scorer's `scoring_graph`.

    Raises:
      InputError: there is no record.
    """
    popularity = scorer.popularity
    if popularity is None:
        return predict(scorer, batches, score)
    popularity.fit.assign(NOTHING)
    scored = predict(scorer, batches, score)
    log_clicks = popularity.log_clicks.numpy()[scored.candidate]
    requests = scored.request if scorer.ranks_candidates else None
    popularity.fit.assign(fit(scored.logit, log_clicks, scored.label, requests))
    return dataclasses.replace(
        scored, logit=popularity(scored.logit.astype(np.float32), scored.candidate).numpy()
    )


def told_weight(scorer: Scorer) -> dict[str, float]:
    """What stands beside a scorer's metrics: w, if it has popularity."""
    return (
        {} if scorer.popularity is None else {metrics.POPULARITY_WEIGHT: scorer.popularity.weight}
    )


def fit(
    logits: np.ndarray,
    log_clicks: np.ndarray,
    labels: np.ndarray,
    requests: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """The a, w and s of a regression of labels on a logit + w log_clicks + s.

    Args:
      logits, log_clicks, labels: `[N]`.
      requests: `[N]`, where logits are free by a number for each request (Scorer.ranks_candidates):
        rows of a request stand together, and clicks are a softmax over them; s keeps the mean
        logit. None for a logistic regression of all rows.

    Returns:
      w above 0; NOTHING where it would not be, where a is not positive, and where there is
      nothing to fit.
    """
    columns = np.stack([logits, log_clicks], axis=1).astype(np.float64)
    clicked = labels > 0
    if not np.isfinite(columns).all() or clicked.all() or not clicked.any():
        return NOTHING
    first = np.zeros(1, np.int64) if requests is None else _first_rows(requests)
    sizes = np.diff(np.r_[first, len(columns)])
    mean = columns.mean(axis=0)
    columns -= np.repeat(np.add.reduceat(columns, first) / sizes[:, None], sizes, axis=0)
    spread = columns.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    columns /= scale
    if requests is None:
        with_intercept = np.column_stack([columns, np.ones(len(columns))])
        fitted = _minimise(_logistic(with_intercept, clicked), 3)
    else:
        fitted = _minimise(_softmax(columns, clicked, first), 2)
    slope, weight = fitted[:2] / scale
    if slope <= 0 or weight <= 0:
        return NOTHING
    level = fitted[2] if requests is None else mean[0]
    return float(slope), float(weight), float(level - slope * mean[0] - weight * mean[1])


def _first_rows(requests: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, requests[1:] != requests[:-1]])


def _logistic(rows: np.ndarray, clicked: np.ndarray) -> Objective:
    """Mean cross-entropy of labels `[N]` by rows `[N, P]`."""

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        logit = rows @ parameters
        probability = np.exp(-np.logaddexp(0.0, -logit))
        loss = np.mean(np.logaddexp(0.0, logit) - clicked * logit)
        gradient = rows.T @ (probability - clicked) / len(rows)
        curvature = (probability * (1.0 - probability))[:, None]
        return float(loss), gradient, rows.T @ (rows * curvature) / len(rows)

    return objective


def _softmax(rows: np.ndarray, clicked: np.ndarray, first: np.ndarray) -> Objective:
    """Mean of `losses.softmax_loss` over requests with a click, by rows `[N, P]`.

    Args:
      first: `[R]`, where each request begins.
    """
    number = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(rows)]))
    clicks = np.add.reduceat(clicked.astype(np.float64), first)
    counted = clicks > 0
    share = clicked / np.maximum(clicks, 1.0)[number]  # of a request's clicks

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        logit = rows @ parameters
        logit -= np.maximum.reduceat(logit, first)[number]
        total = np.add.reduceat(np.exp(logit), first)
        probability = np.exp(logit) / total[number] * counted[number]
        loss = np.sum(np.log(total)[counted]) - share @ logit
        mean = np.add.reduceat(rows * probability[:, None], first)[number]
        hessian = (rows - mean).T @ ((rows - mean) * probability[:, None])
        size = counted.sum()
        return float(loss) / size, rows.T @ (probability - share) / size, hessian / size

    return objective


def _minimise(objective: Objective, size: int) -> np.ndarray:
    """`[size]` parameters that minimise an objective and a ridge, by Newton's steps from 0."""

    def ridged(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        loss, gradient, hessian = objective(parameters)
        loss += 0.5 * RIDGE * float(parameters @ parameters)
        return loss, gradient + RIDGE * parameters, hessian + RIDGE * np.eye(size)

    found = np.zeros(size)
    loss, gradient, hessian = ridged(found)
    for _ in range(STEPS):
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < TOLERANCE:
            break
        for _ in range(HALVINGS):
            later = ridged(found - step)
            if later[0] < loss:
                break
            step = step / 2
        else:
            break
        found, (loss, gradient, hessian) = found - step, later
    return found
