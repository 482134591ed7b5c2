"""Requests of a data set's split through a serving graph: labels and logits to judge it by."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from export import signatures
from sitn_tf import data, schema
from sitn_tf.data import Batch
from sitn_tf.evaluation.predictions import scoring_graph
from sitn_tf.models.scorer import Scorer

BATCH = 256
MAX_REQUESTS = 50_000
"""Requests of a split that are enough to fit a curve and to compare two tables."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """Candidates of a split.

    Attributes:
      request: `[N]` int64, number of the record.
      label: `[N]` int64.
      logit: `[N]` float32.
    """

    request: np.ndarray
    label: np.ndarray
    logit: np.ndarray


def trained_logits(scorer: Scorer, data_dir: pathlib.Path, split: str) -> Scored:
    """Uncalibrated logits of the trained model."""
    score = scoring_graph(scorer)
    inputs = tuple(feature.name for feature in scorer.reads)

    def run(_: tf.Tensor, parsed: Batch) -> np.ndarray:
        return score({name: parsed[name] for name in inputs}).numpy()

    return _score(run, data_dir, split)


def served_logits(traced: Any, data_dir: pathlib.Path, split: str) -> Scored:
    """Calibrated log-odds of the serving graph's `serving_default`."""

    def run(serialized: tf.Tensor, _: Batch) -> np.ndarray:
        return traced[signatures.SERVING_DEFAULT](examples=serialized)[signatures.LOGIT].numpy()

    return _score(run, data_dir, split)


def _score(run: Any, data_dir: pathlib.Path, split: str) -> Scored:
    pattern = str(data_dir / schema.shard_glob(schema.STAGE2, split))
    records = tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern))).take(MAX_REQUESTS)
    parts = []
    first = 0
    for serialized in records.batch(BATCH):
        parsed = data.parse_stage2(serialized)
        real = parsed[schema.CANDIDATES.name].numpy() != schema.PAD_ID
        logits = run(serialized, parsed)
        parts.append(
            (
                first + np.nonzero(real)[0],
                parsed[schema.LABELS.name].numpy()[real],
                logits[real],
            )
        )
        first += len(real)
    return Scored(*(np.concatenate(column) for column in zip(*parts, strict=True)))
