"""A scorer and a split of requests → labels and probabilities, candidate by candidate."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.data import TF_DTYPES, Batch, user_hash
from sitn_tf.errors import InputError
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.models.scorer import Scorer

EVALUATION_BATCH = 512
"""Requests of a split scored at once."""


def scoring_graph(scorer: Scorer) -> Callable[[Batch], tf.Tensor]:
    """A scorer as a graph, traced once for batches of any size: what it `reads` → `[B, C]`."""
    specs = {
        feature.name: tf.TensorSpec([None] * (1 + feature.ragged), TF_DTYPES[feature.dtype])
        for feature in scorer.reads
    }
    return tf.function(scorer.__call__, input_signature=[specs], autograph=False)


def predict(
    scorer: Scorer,
    batches: tf.data.Dataset,
    score: Callable[[Batch], tf.Tensor] | None = None,
) -> Predictions:
    """Scores every candidate of every batch.

    Args:
      score: the scorer's `scoring_graph`, for one who predicts again and again.

    Raises:
      InputError: there is no record.
    """
    graph = score or scoring_graph(scorer)
    inputs = [feature.name for feature in scorer.reads]
    return collect(batches, lambda batch: graph({name: batch[name] for name in inputs}))


def collect(batches: tf.data.Dataset, score: Callable[[Batch], tf.Tensor]) -> Predictions:
    """What `score` gives the candidates of every batch.

    Args:
      batches: of stage-2 records, and whatever else `score` reads.
      score: batch → logits `[B, C]`.

    Raises:
      InputError: there is no record.
    """
    parts = []
    first_request = 0
    for batch in batches:
        logits = score(batch).numpy()
        parts.append(_flatten(batch, logits, first_request))
        first_request += len(logits)
    if not parts:
        raise InputError(
            "the split holds no records",
            "build the data set from longer logs, or with a larger validation_fraction or "
            "test_fraction",
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    logged = columns.pop("logged_score")
    has_scores = len(logged) == len(columns["label"])
    return Predictions(logged_score=logged if has_scores else None, **columns)


def _flatten(batch: Batch, logits: np.ndarray, first_request: int) -> dict[str, np.ndarray]:
    """The fields of `Predictions`, of one batch; no logged score where the batch has none."""
    candidates = batch[schema.CANDIDATES.name].numpy()
    real = candidates != schema.PAD_ID
    logged = batch[schema.LOGGED_SCORES.name].numpy()
    return {
        "request": first_request + np.nonzero(real)[0],
        "candidate": candidates[real],
        "label": batch[schema.LABELS.name].numpy()[real],
        "logged_score": logged[real] if logged.shape == real.shape else np.zeros(0, np.float32),
        "logit": logits[real],
        "user": user_hash(batch).numpy(),
        "source_length": _lengths(batch, schema.SOURCE_HISTORY),
        "target_length": _lengths(batch, schema.TARGET_HISTORY),
    }


def _lengths(batch: Batch, history: schema.Feature) -> np.ndarray:
    return np.count_nonzero(batch[history.name].numpy() != schema.PAD_ID, axis=1)
