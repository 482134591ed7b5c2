"""Warm-up requests for TF Serving: one for each signature and batch size, one for `ctr` alone.

TF Serving replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
protos, before a version takes traffic, and refuses a version whose warm-up fails. It
accepts no compression and no more than 1,000 records.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export import requests as reqs
from export.native import Call
from export.requests import Request
from export.serving_client import PredictCall
from export.transports import predict_request

FILE = "assets.extra/tf_serving_warmup_requests"
MODEL_NAME = "sitn"
MAX_RECORDS = 1000

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Also `allowed_batch_sizes` of export/serving/batching_parameters.txt."""

FILTERED = (reqs.SERVING_DEFAULT, reqs.SCORE, reqs.SCORE_ENCODED)
"""Signatures asked for `ctr` alone too: with an `output_filter` a call runs a graph of its own,
whose first call takes as long as a model's that was not warmed up."""


def calls(
    requests: Sequence[Request],
    vocabularies: Mapping[str, reqs.Vocabulary],
    traced: Mapping[str, Any],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[Call]:
    """(signature, inputs) for every signature and batch size."""
    made: list[Call] = []
    for size in batch_sizes:
        batch = [requests[i % len(requests)] for i in range(size)]
        users = reqs.user_inputs(batch)
        shown = reqs.candidate_inputs([r.candidates for r in batch])
        encoded = run_traced(traced, reqs.ENCODE_USER, users)
        made += [
            (reqs.SERVING_DEFAULT, reqs.example_inputs(batch, vocabularies)),
            (reqs.SCORE, {**users, **shown}),
            (reqs.ENCODE_USER, users),
            (reqs.SCORE_ENCODED, {**encoded, **shown}),
        ]
    return made


def run_traced(
    traced: Mapping[str, Any], signature: str, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Answers from Python, with the very functions that were exported."""
    outputs = traced[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def write(version_dir: pathlib.Path, made: Sequence[Call], model_name: str = MODEL_NAME) -> None:
    """Writes the warm-up file: the calls, and the first of each of `FILTERED` again for `ctr`.

    Raises:
      ValueError: more records than TF Serving accepts.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    filtered = {signature: inputs for signature, inputs in reversed(made) if signature in FILTERED}
    asked = [PredictCall(*call) for call in made]
    asked += [PredictCall(*call, outputs=(reqs.CTR,)) for call in filtered.items()]
    if len(asked) > MAX_RECORDS:
        raise ValueError(f"{len(asked)} warm-up records: TF Serving refuses over {MAX_RECORDS}")
    path = version_dir / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for call in asked:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(predict_request(call, model_name))
            writer.write(log.SerializeToString())


def read(version_dir: pathlib.Path) -> Iterator[Call]:
    """The calls of a warm-up file."""
    return ((signature, inputs) for signature, inputs, _ in read_filtered(version_dir))


def read_filtered(version_dir: pathlib.Path) -> Iterator[tuple[str, reqs.Inputs, list[str]]]:
    """The calls, and which outputs each asks for, none for all: for a replay."""
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset([str(version_dir / FILE)]).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        yield request.model_spec.signature_name, inputs, list(request.output_filter)
