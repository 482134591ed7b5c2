"""Request features: their rows by hand, and what they do to every model."""

import dataclasses
import datetime
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation.predictions import predict
from sitn_tf.layers.request_features import (
    hour_row,
    idle_row,
    power_row,
    user_row,
    weekday_row,
)
from sitn_tf.models.registry import SCORERS, make_scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam, RowWiseAdagrad
from sitn_tf.training import stage2
from sitn_tf.training.stage import Stage
from tests.sitn_tf.models.apart import encode_and_score
from tests.small_dataset import example

ALL = ("hour", "weekday", "user", "source_length", "idle", "target_length")
BUCKETS = 50
MONDAY_NOON = 1_717_416_000  # 2024-06-03 12:00 UTC
HOUR, DAY = 3600, 86_400


def make(small, **model):
    manifest = schema.read_manifest(small)
    chosen = config.override(config.tiny(), [f"model.name={model.pop('name', 'sitn')}"])
    settings = dataclasses.replace(
        chosen, model=dataclasses.replace(chosen.model, user_buckets=BUCKETS, **model)
    )
    tf.keras.utils.set_random_seed(3)
    return make_scorer(settings, runs.read_tables(small, manifest, settings), manifest.max_history)


@pytest.fixture(scope="module", params=SCORERS)
def scorer(request, small):
    """A model of all request features whose rows all differ. To be left as it was."""
    made = make(small, name=request.param, request_features=ALL)
    for table in made.request_embedding.tables.values():
        table.assign(tf.random.normal(table.shape))
    return made


def requests(times, users):
    """The same histories and candidates, asked for at some times by some users."""
    rows = len(times)
    return {
        "source_history": tf.constant([[4, 9, 9]] * rows, tf.int64),
        "target_history": tf.constant([[5, 2]] * rows, tf.int64),
        "candidates": tf.constant([[3, 7, 2]] * rows, tf.int64),
        "request_time": tf.constant(times, tf.int64),
        "history_time": tf.constant([MONDAY_NOON - 100] * rows, tf.int64),
        "user_id": tf.constant(users, tf.string),
    }


@pytest.mark.parametrize(
    ("time", "hour", "weekday"),
    [
        (-(2**63), 0, 0),
        (-1, 0, 0),
        (0, 0, 0),
        (1, 1, 4),  # 1970-01-01 00:00:01, a Thursday
        (3599, 1, 4),
        (3600, 2, 4),
        (1_000_000_000, 2, 7),  # 2001-09-09 01:46:40, a Sunday
        (1_709_251_199, 24, 4),  # 2024-02-29 23:59:59, a Thursday
        (1_709_251_200, 1, 5),
        (MONDAY_NOON, 13, 1),
    ],
)
def test_rows_of_known_times(time, hour, weekday):
    times = tf.constant([time], tf.int64)
    assert hour_row(times).numpy().tolist() == [hour]
    assert weekday_row(times).numpy().tolist() == [weekday]


def test_rows_are_those_of_the_calendar_and_within_the_tables():
    times = np.random.default_rng(0).integers(1, 2**33, 500)
    moments = [datetime.datetime.fromtimestamp(int(t), datetime.UTC) for t in times]
    assert hour_row(tf.constant(times)).numpy().tolist() == [1 + m.hour for m in moments]
    assert weekday_row(tf.constant(times)).numpy().tolist() == [m.isoweekday() for m in moments]
    latest = tf.constant([2**63 - 1], tf.int64)
    assert 1 <= hour_row(latest).numpy()[0] <= 24
    assert 1 <= weekday_row(latest).numpy()[0] <= 7


def test_a_users_row_is_pinned():
    """Another hash would give the users of every trained table away to others."""
    users = tf.constant([b"", b"u1", b"u2", b"\xff\x00", "Zoë".encode()])
    rows = user_row(users, 1000).numpy().tolist()
    assert rows == [0, 460, 698, 464, 768]
    many = user_row(tf.constant([f"u{i}" for i in range(2000)]), 10).numpy()
    assert sorted(set(many.tolist())) == list(range(1, 11))


def test_rows_by_powers_of_two():
    values = [*range(10), 2**40 - 1, 2**40, 2**62 - 1, 2**62, 2**63 - 1]
    found = power_row(tf.constant(values, tf.int64)).numpy().tolist()
    assert found == [1 + value.bit_length() for value in values]
    assert max(found) == 64
    assert power_row(tf.constant([-1, -(2**63)], tf.int64)).numpy().tolist() == [0, 0]


@pytest.mark.parametrize(
    ("history_time", "time", "row"),
    [
        (1000, 1000, 1),
        (999, 1000, 2),
        (1, 86_401, 18),
        (1, 2**63 - 1, 64),
        (-1, 1000, 0),  # schema.NO_HISTORY_TIME
        (0, 1000, 0),
        (1000, 0, 0),
        (-(2**63), 2**63 - 1, 0),
        (1001, 1000, 0),
    ],
)
def test_rows_of_idle_times(history_time, time, row):
    times = (tf.constant([moment], tf.int64) for moment in (history_time, time))
    assert idle_row(*times).numpy().tolist() == [row]


def test_lengths_and_idle_are_read_by_their_rows(scorer):
    """Each row by hand: what the other rows hold makes no difference."""
    batch = requests([MONDAY_NOON, MONDAY_NOON + 27], ["u1", "u1"]) | {
        "source_history": tf.constant([[4, 0, 9, 9, 0], [0] * 5], tf.int64),
        "target_history": tf.constant([[5, 2, 0], [3, 2, 4]], tf.int64),
    }
    sees_source = scorer.config.model.use_source
    rows = {
        "source_length": [3, 1] if sees_source else [0, 0],
        "target_length": [3, 3],
        "idle": [8, 8],
    }
    before = scorer(batch).numpy()
    for feature, expected in rows.items():
        table = scorer.request_embedding.tables[feature]
        weights = table.numpy()
        others = np.setdiff1d(np.arange(65), expected)
        table.scatter_nd_add(others[:, None], tf.ones([len(others), 8]))
        np.testing.assert_array_equal(scorer(batch), before, feature)
        table.assign(weights + 1.0)
        assert (scorer(batch).numpy() != before).any(axis=1).all(), feature
        table.assign(weights)


def test_every_feature_tells_requests_apart_and_the_unknown_are_scored(scorer):
    base = (MONDAY_NOON, "u1")
    others = [(MONDAY_NOON + HOUR, "u1"), (MONDAY_NOON + DAY, "u1"), (MONDAY_NOON, "u2")]
    unknown = [(0, "u1"), (-5, "u1"), (MONDAY_NOON, ""), (0, "")]
    logits = scorer(requests(*zip(base, *others, *unknown, strict=True))).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[4], logits[5], rtol=1e-6)
    distinct = np.delete(logits, 5, axis=0)
    for candidate in distinct.T:
        assert len(np.unique(candidate.round(5))) == len(distinct)


def test_encoding_once_and_other_rows_change_no_score(scorer):
    batch = requests([MONDAY_NOON, 0, MONDAY_NOON + 5 * HOUR], ["u1", "u2", ""])
    logits = scorer(batch).numpy()
    again = encode_and_score(scorer, batch)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-6)
    for row in range(3):
        alone = scorer({name: value[row : row + 1] for name, value in batch.items()})
        np.testing.assert_allclose(alone[0], logits[row], rtol=1e-5, atol=1e-6)


def test_a_row_of_the_table_is_a_further_part_of_the_concatenation(small):
    """mean_pool by hand: MLP(means, request vectors, candidate, products with each)."""
    scorer = make(small, name="mean_pool", request_features=("user", "hour"))
    for table in scorer.request_embedding.tables.values():
        table.assign(tf.random.normal(table.shape))
    batch = requests([MONDAY_NOON], ["u1"])
    users = [tf.reduce_mean(scorer.items[d](batch[f"{d}_history"]), axis=1) for d in schema.DOMAINS]
    tables = scorer.request_embedding.tables
    users += [tables["user"][int(user_row(batch["user_id"], BUCKETS)[0])][None]]
    users += [tables["hour"][13][None]]
    item = scorer.items[schema.TARGET](batch["candidates"])[:, 0]
    joined = tf.concat([*users, item, *(user * item for user in users)], axis=-1)
    np.testing.assert_allclose(scorer(batch)[0, :1], scorer.mlp(joined)[0], rtol=1e-5)


def test_rows_that_training_never_touched_add_nothing(small):
    scorer = make(small, request_features=ALL)
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 16)))
    optimizer = RowSparseAdam(learning_rate=0.1)
    with tf.GradientTape() as tape:
        loss = stage2.scorer_losses(scorer, batch)["loss"]
    variables = scorer.trainable_variables
    gradients = tape.gradient(loss, variables)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    seen = {int(row) for row in user_row(batch["user_id"], BUCKETS)}
    new = next(f"new{i}" for i in range(999) if int(user_row([f"new{i}"], BUCKETS)[0]) not in seen)
    known = batch["user_id"].numpy()[0]
    logits = scorer(requests([0, 0, 0], ["", new, known])).numpy()
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[2] - logits[0]).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_updates_follow_the_rows_touched(small, precision):
    scorer = make(small, request_features=ALL, precision=precision)
    tables = list(scorer.request_embedding.tables.values())
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 16)))
    with tf.GradientTape() as tape:
        loss = stage2.scorer_losses(scorer, batch)["loss"]
    for gradient in tape.gradient(loss, tables):
        assert isinstance(gradient, tf.IndexedSlices)
        assert gradient.values.shape == (16, 8)
    adagrad = RowWiseAdagrad()
    adagrad.build(tables)
    shapes = [tuple(a.shape) for a in adagrad._accumulators]
    assert shapes == [(25,), (8,), (51,), (65,), (65,), (65,)]


def test_no_feature_no_variable_and_no_input(small):
    plain, all_on = make(small), make(small, request_features=ALL)
    assert [f.name for f in plain.reads] == ["source_history", "target_history", "candidates"]
    assert [f.name for f in all_on.reads][3:] == ["request_time", "user_id", "history_time"]
    lengths = make(small, request_features=("source_length", "target_length"))
    assert [f.name for f in lengths.reads] == [f.name for f in plain.reads]
    assert [f.name for f in make(small, request_features=("weekday", "hour")).reads][3:] == [
        "request_time"
    ]
    batch = requests([MONDAY_NOON], ["u1"])
    bare = {name: batch[name] for name in ("source_history", "target_history", "candidates")}
    np.testing.assert_array_equal(plain(batch), plain(bare))
    assert not any("request" in v.name for v in plain.variables)
    more = [v.name for v in all_on.variables if "request_features/" in v.name]
    assert len(more) == 6
    assert len(all_on.variables) == len(plain.variables) + 6


def test_what_is_of_times_is_refused_where_a_data_set_has_none(small, tmp_path):
    ordered = shutil.copytree(small, tmp_path / "ordered")
    manifest = json.loads((ordered / schema.MANIFEST_FILE).read_text())
    manifest["options"]["formats"] = {domain: {"time_unit": "order"} for domain in schema.DOMAINS}
    (ordered / schema.MANIFEST_FILE).write_text(json.dumps(manifest))
    chosen = config.override(config.tiny(), ["model.request_features=user,hour,idle"])
    with pytest.raises(
        InputError, match=r"features=hour needs times; those of .* order"
    ) as refused:
        Stage(schema.STAGE2, chosen, ordered)
    assert refused.value.remedy == "leave out hour, idle"
    Stage(schema.STAGE2, chosen, small)
    chosen = config.override(config.tiny(), ["model.request_features=user,source_length"])
    Stage(schema.STAGE2, chosen, ordered)


def test_a_missing_time_is_an_error_in_training_alone():
    bare = tf.constant([example({"candidates": [2]})])
    wanted = (schema.REQUEST_TIME, schema.USER_ID, schema.CANDIDATES)
    with pytest.raises(tf.errors.InvalidArgumentError, match="request_time"):
        data.parse(bare, wanted)
    parsed = data.parse(bare, wanted, may_lack=True)
    assert parsed["request_time"].numpy().tolist() == [0]
    assert parsed["user_id"].numpy().tolist() == [b""]


def test_predicting_a_split_gives_the_models_scores(scorer, small):
    scored = predict(scorer, data.read_split(small, schema.STAGE2, schema.TEST, 7))
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TEST, 64)))
    direct = scorer(batch).numpy()[batch["candidates"].numpy() != schema.PAD_ID]
    np.testing.assert_allclose(scored.logit, direct, rtol=1e-4, atol=1e-5)
