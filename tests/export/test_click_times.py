"""Times of clicks in requests, and in the serving graph of a model that reads them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from export import requests, signatures
from export.item_vectors import fold
from export.requests import Request
from sitn_tf import schema
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_scorer
from tests.sitn_tf.models.made import made
from tests.small_dataset import MAX_HISTORY, example, write_small_dataset

NOON = 1_717_416_000
HOUR = 3600
TIMES = {"source_times": (NOON - 90 * HOUR, NOON - 5 * HOUR, 0), "target_times": (NOON - HOUR,)}
BARE = Request(("s2", "s3", "s9"), ("t5",), ("t2", "t3", "never seen", "t9"), request_time=NOON)
ASKED = dataclasses.replace(BARE, **TIMES)
OLDER = dataclasses.replace(ASKED, target_times=(NOON - 900 * HOUR,))


def test_a_request_has_a_time_for_each_click_or_none_at_all():
    with pytest.raises(InputError, match="source_times has 2 times, source_history has 3 items"):
        dataclasses.replace(BARE, source_times=(1, 2))
    rows = requests.times_inputs([ASKED, BARE])
    assert rows["source_times"].tolist() == [list(TIMES["source_times"]), [0, 0, 0]]
    assert requests.times_inputs([BARE]) == {}
    assert list(requests.times_inputs([BARE], ["target_times"])) == ["target_times"]
    assert requests.times_inputs([ASKED], []) == {}
    assert requests.from_dict(requests.to_dict(ASKED)) == ASKED


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("timed"), click_times=True)


@pytest.fixture(scope="module")
def scorer(data_dir):
    """Random weights, whose curves say something."""
    scorer = made(make_scorer, data_dir, "encoder.ages=true")
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.2))
    return scorer


@pytest.fixture(scope="module")
def graph(scorer, data_dir):
    files = {d: data_dir / schema.vocabulary_path(d, schema.ITEM) for d in schema.DOMAINS}
    options = signatures.ServingOptions(max_history=MAX_HISTORY)
    return signatures.Servable(scorer, fold(scorer), files, options)


def _tensors(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


def test_the_last_clicks_are_cut_with_their_times(graph, scorer, data_dir):
    """A history longer than `max_history`, with an empty id in it, in each signature."""
    vocabulary = requests.read_vocabularies(data_dir / "vocabularies")
    clicks = [f"s{2 + i % 9}" for i in range(MAX_HISTORY + 3)]
    hours = np.arange(len(clicks))[::-1] ** 3
    times = (NOON - HOUR * hours).tolist()
    clicks[5] = ""
    asked = dataclasses.replace(
        ASKED, source_history=tuple(clicks), source_times=tuple(map(int, times))
    )
    real = [i for i, click in enumerate(clicks) if click][-MAX_HISTORY:]
    kept = dataclasses.replace(
        asked,
        source_history=tuple(clicks[i] for i in real),
        source_times=tuple(times[i] for i in real),
    )
    batch = {name: [ids] for name, ids in requests.ids_by_name(kept, vocabulary).items()}
    batch |= {name: [getattr(kept, name)] for name in TIMES} | {"request_time": [NOON]}
    expected = scorer({name: tf.constant(value, tf.int64) for name, value in batch.items()})
    inputs = _tensors(requests.score_inputs([asked]))
    np.testing.assert_allclose(graph.score(**inputs)["logit"], expected, atol=2e-6)
    shown = _tensors(requests.candidate_inputs([asked.candidates]))
    encoded = graph.encode_user(**_tensors(requests.user_inputs([asked])))
    again = graph.score_encoded(**encoded, **shown)["logit"]
    np.testing.assert_allclose(again, expected, atol=2e-6)
    examples = tf.constant(requests.example_inputs([asked], vocabulary)["examples"])
    np.testing.assert_allclose(graph.serving_default(examples)["logit"], expected, atol=2e-6)


def test_times_that_are_not_as_many_as_the_clicks_are_refused(graph):
    inputs = _tensors(requests.score_inputs([ASKED]))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="source_times has not a time for each"
    ):
        graph.score(**inputs | {"source_times": tf.constant([[5, 6]], tf.int64)})
    record = {"source_history": [2, 3], "candidates": [4], "request_time": NOON}
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="source_times has not a time for each"
    ):
        graph.serving_default(tf.constant([example(record)]))
