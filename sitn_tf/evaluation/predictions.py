"""A scorer and a split of requests → labels and probabilities, candidate by candidate."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.data import TF_DTYPES, Batch
from sitn_tf.errors import InputError
from sitn_tf.models.scorer import Scorer

EVALUATION_BATCH = 512
"""Requests of a split scored at once."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Every real candidate of a split, in the order of its records.

    Attributes:
      request: `[N]` int64, number of the record.
      candidate: `[N]` int64, item id.
      label: `[N]` int64.
      logged_score: `[N]` float32, the log's own score, or None where the log has none.
      logit: `[N]` float32.
    """

    request: np.ndarray
    candidate: np.ndarray
    label: np.ndarray
    logged_score: np.ndarray | None
    logit: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """`[N]` float64."""
        return 1.0 / (1.0 + np.exp(-self.logit.astype(np.float64)))


def scoring_graph(scorer: Scorer) -> Callable[[Batch], tf.Tensor]:
    """A scorer as a graph, traced once for batches of any size: what it `reads` → `[B, C]`."""
    specs = {
        feature.name: tf.TensorSpec([None] * (1 + feature.ragged), TF_DTYPES[feature.dtype])
        for feature in scorer.reads
    }
    return tf.function(scorer.__call__, input_signature=[specs])


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
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    request, candidate, label, logged, logit = columns
    has_scores = len(logged) == len(label)
    return Predictions(request, candidate, label, logged if has_scores else None, logit)


def _flatten(batch: Batch, logits: np.ndarray, first_request: int) -> tuple[np.ndarray, ...]:
    candidates = batch[schema.CANDIDATES.name].numpy()
    real = candidates != schema.PAD_ID
    logged = batch[schema.LOGGED_SCORES.name].numpy()
    return (
        first_request + np.nonzero(real)[0],
        candidates[real],
        batch[schema.LABELS.name].numpy()[real],
        logged[real] if logged.shape == real.shape else np.zeros(0, np.float32),
        logits[real],
    )
