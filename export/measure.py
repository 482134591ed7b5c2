"""Requests of a data set's split through a model or its serving graph, to judge them by."""

import pathlib
from typing import Any

import tensorflow as tf

from export import signatures
from sitn_tf import data, schema, shards
from sitn_tf.evaluation.predictions import Predictions, collect, predict
from sitn_tf.models.scorer import Scorer

BATCH = 256
MAX_REQUESTS = 50_000
"""Requests of a split that are enough to fit a curve and to compare two tables."""


def trained(scorer: Scorer, data_dir: pathlib.Path, split: str) -> Predictions:
    """With uncalibrated logits of the trained model."""
    with shards.named(data_dir, [schema.STAGE2]):
        return predict(scorer, _requests(data_dir, split))


def served(traced: Any, data_dir: pathlib.Path, split: str) -> Predictions:
    """With calibrated log-odds of the serving graph's `serving_default`."""

    def score(batch: data.Batch) -> tf.Tensor:
        answer = traced[signatures.SERVING_DEFAULT](examples=batch[signatures.EXAMPLES])
        return answer[signatures.LOGIT]

    with shards.named(data_dir, [schema.STAGE2]):
        return collect(_requests(data_dir, split), score)


def _requests(data_dir: pathlib.Path, split: str) -> tf.data.Dataset:
    """The first requests of a split, parsed, and serialized as `signatures.EXAMPLES`."""
    files = shards.find(data_dir, schema.STAGE2, split)
    features = schema.read_manifest(data_dir).features_of(schema.STAGE2)
    records = tf.data.TFRecordDataset(files).take(MAX_REQUESTS)
    return records.batch(BATCH).map(
        lambda serialized: data.parse(serialized, features) | {signatures.EXAMPLES: serialized}
    )
