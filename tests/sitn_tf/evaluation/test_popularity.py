"""Popularity's weight against references, and that training never sees it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.optimize
import tensorflow as tf

from sitn_tf import config, data, evaluate, runs, schema, trained_models
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.popularity import fit, fit_and_predict
from sitn_tf.evaluation.predictions import predict, scoring_graph
from sitn_tf.layers import randomness
from sitn_tf.layers.popularity import NOTHING
from sitn_tf.models.registry import SCORERS, make_scorer
from sitn_tf.training import stage2
from tests.commands import run_main
from tests.small_dataset import (
    MAX_HISTORY,
    TARGET_ITEMS,
    example,
    request_record,
    write_small_dataset,
)

ON, OFF = "model.popularity=true", "model.popularity=false"
OFTEN = 9
"""The first of the target items that are clicked often."""


def clicks_by_popularity(true_weight, rows=3000, slope=0.7, seed=0):
    """Logits that are `slope` times too steep, log clicks, labels, and requests of five rows."""
    rng = np.random.default_rng(seed)
    log_clicks = np.log1p(rng.pareto(1.0, rows) * 5)
    logits = rng.normal(size=rows) / slope
    odds = slope * (logits + true_weight * log_clicks) - 1.5
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return logits, log_clicks, labels, np.repeat(np.arange(rows // 5), 5)


def by_scipy(loss, size):
    found = scipy.optimize.minimize(loss, np.zeros(size), method="BFGS", options={"gtol": 1e-9})
    return found.x


def test_the_weight_is_that_of_a_logistic_regression():
    logits, log_clicks, labels, _ = clicks_by_popularity(0.5)

    def loss(p):
        eta = p[0] * logits + p[1] * log_clicks + p[2]
        return np.mean(np.logaddexp(0, eta) - labels * eta)

    found = fit(logits, log_clicks, labels)
    np.testing.assert_allclose(found, by_scipy(loss, 3), rtol=1e-4)
    np.testing.assert_allclose(found[1] / found[0], 0.5, atol=0.1)
    wide = fit(1e4 * logits + 7e5, log_clicks, labels)
    expected = (found[0] / 1e4, found[1], found[2] - found[0] * 70)
    np.testing.assert_allclose(wide, expected, rtol=1e-6)


def test_the_weight_is_that_of_a_softmax_over_each_request():
    logits, log_clicks, labels, requests = clicks_by_popularity(0.5)
    labels[:5], labels[5:10] = 0, 1

    def loss(p):
        total = 0.0
        for request in range(requests[-1] + 1):
            rows = slice(5 * request, 5 * request + 5)
            eta, clicked = p[0] * logits[rows] + p[1] * log_clicks[rows], labels[rows] > 0
            if clicked.any():
                total += np.log(np.sum(np.exp(eta))) - np.mean(eta[clicked])
        return total / 600

    found = fit(logits, log_clicks, labels, requests)
    np.testing.assert_allclose(found[:2], by_scipy(loss, 2), rtol=1e-3)
    popular = found[0] * logits + found[1] * log_clicks + found[2]
    np.testing.assert_allclose(popular.mean(), logits.mean(), atol=1e-9)
    free = np.random.default_rng(1).normal(size=600)[requests] * 50
    np.testing.assert_allclose(
        fit(logits + free, log_clicks, labels, requests)[:2], found[:2], rtol=1e-3
    )
    assert abs(fit(logits + free, log_clicks, labels)[1] - found[1]) > 0.05


@pytest.mark.parametrize("grouped", [False, True])
def test_where_the_weight_is_zero(grouped):
    logits, log_clicks, labels, requests = clicks_by_popularity(-0.5)
    group = requests if grouped else None
    assert fit(logits, log_clicks, labels, group) == NOTHING
    _, _, liked, _ = clicks_by_popularity(0.5)
    assert fit(logits, log_clicks, liked, group)[1] > 0.1
    for changed in (-logits, 0 * logits, np.where(logits > 2, np.nan, logits)):
        assert fit(changed, log_clicks, liked, group) == NOTHING
    assert fit(logits, 0 * log_clicks + 3, liked, group) == NOTHING
    assert fit(logits, log_clicks, 0 * liked, group) == NOTHING
    assert fit(logits, log_clicks, 0 * liked + 1, group) == NOTHING


@pytest.mark.parametrize("grouped", [False, True])
def test_clicks_that_can_be_told_apart_still_have_a_weight(grouped):
    logits, log_clicks, _, requests = clicks_by_popularity(0.5)
    score = logits + 0.5 * log_clicks
    labels = (score > np.median(score)).astype(np.int64)
    group = requests if grouped else None
    slope, weight, _ = fit(logits, log_clicks, labels, group)
    np.testing.assert_allclose(weight / slope, 0.5, rtol=0.05 if group is None else 0.2)
    assert 0 < fit(1e30 * logits, log_clicks, labels, group)[1] < np.inf


def _scorer(small, *settings):
    chosen = config.override(config.tiny(), settings)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(2)
    return make_scorer(chosen, tables, MAX_HISTORY)


def _batch(small, learns_source, rows=12):
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, rows)))
    asked = data.read_split(small, schema.SOURCE_REQUESTS, schema.TRAIN, rows)
    return data.with_source_requests(batch, next(iter(asked))) if learns_source else batch


@pytest.mark.parametrize("name", ["sitn", "deepfm", "clsr", "minet"])
def test_training_sees_no_count(small, name):
    """Losses and gradients have the bits that they have without it, whatever the weight."""
    batch = _batch(small, SCORERS[name].learns_source)
    without, popular = (_scorer(small, f"model.name={name}", *more) for more in ((OFF,), (ON,)))
    popular.popularity.fit.assign([2.0, 3.0, -1.0])
    (losses, gradients), (again, gradients_again) = (
        _losses_and_gradients(scorer, batch) for scorer in (without, popular)
    )
    assert losses == again
    assert len(gradients) == len(gradients_again)
    for gradient, other in zip(gradients, gradients_again, strict=True):
        np.testing.assert_array_equal(gradient, other)
    count = runs.read_tables(small, schema.read_manifest(small), popular.config)["target"].count
    added = 3 * np.log1p(count)[batch["candidates"]] - 1
    np.testing.assert_allclose(popular(batch) - 2 * without(batch), added, rtol=1e-4, atol=1e-5)


def _losses_and_gradients(scorer, batch):
    step = tf.constant(1, tf.int64)
    with tf.GradientTape() as tape, randomness.at_step(0, step):
        losses = stage2.scorer_losses(scorer, batch)
    gradients = tape.gradient(losses["loss"], scorer.trainable_variables)
    return {name: float(loss) for name, loss in losses.items()}, [
        None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for gradient in gradients
    ]


def test_a_source_request_and_a_model_in_half_precision(small):
    scorer = _scorer(small, "model.name=minet", ON, "model.precision=bfloat16")
    asked = data.source_requests(_batch(small, True))
    before = scorer(asked, domain=schema.SOURCE).numpy()
    scorer.popularity.fit.assign([1.0, 1.0 + 2**-20, 0.0])
    np.testing.assert_array_equal(scorer(asked, domain=schema.SOURCE), before)
    ids = tf.constant([[0, 5], [14, 3]], tf.int64)
    expected = np.float32(1.0 + 2**-20) * scorer.popularity.log_clicks.numpy()[ids]
    np.testing.assert_array_equal(scorer.popularity.of(ids), expected)


@pytest.fixture(scope="module")
def popular(tmp_path_factory):
    """A data set of which half of the items are clicked often, by users of validation alone."""
    folder = write_small_dataset(tmp_path_factory.mktemp("popular"))
    path = folder / schema.item_table_path(schema.TARGET)
    table = pq.read_table(path)
    where = table.column_names.index(schema.COUNT)
    count = np.where(np.arange(TARGET_ITEMS) < OFTEN, np.arange(TARGET_ITEMS) % 3, 100)
    pq.write_table(table.set_column(where, schema.COUNT, pa.array(count)), path)
    (shard,) = folder.glob(schema.shard_glob(schema.STAGE2, schema.VALIDATION))
    rng = np.random.default_rng(1)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for user in range(60):
            record = request_record(rng, user)
            often = (record["candidates"] >= OFTEN) & (rng.random(5) < 0.7)
            writer.write(example(record | {"labels": (record["labels"] | often).astype(int)}))
    return folder


def _train(settings, data_dir, run_dir, strategy):
    chosen = config.override(
        config.tiny(), ["model.name=mean_pool", "stage2.learning_rate=0.03", *settings]
    )
    tf.keras.utils.set_random_seed(0)
    return stage2.run_stage2(chosen, data_dir, run_dir, strategy, "none")


@pytest.fixture(scope="module")
def whole(popular, two_cpus, tmp_path_factory):
    """A run with popularity. Not to be changed."""
    run_dir = tmp_path_factory.mktemp("whole") / "stage2"
    _train([ON], popular, run_dir, cpu_strategy(two_cpus[:1]))
    return run_dir


def test_every_epoch_is_judged_with_its_own_weight(whole, popular, two_cpus, tmp_path):
    _train([OFF], popular, tmp_path / "without", cpu_strategy(two_cpus[:1]))
    history, without = (
        runs.read_json(folder / runs.HISTORY_FILE, []) for folder in (whole, tmp_path / "without")
    )
    assert [entry["loss"] for entry in history] == [entry["loss"] for entry in without]
    weights = [entry["popularity_weight"] for entry in history]
    assert len(set(weights)) == len(weights)
    assert min(weights) > 0
    assert all(entry["auc"] > other["auc"] for entry, other in zip(history, without, strict=True))
    assert not any("popularity_weight" in entry for entry in without)

    run = trained_models.load_scorer(whole)
    best = max(history, key=lambda entry: entry["auc"])
    assert run.scorer.popularity.weight == best["popularity_weight"]
    validation = data.read_split(popular, schema.STAGE2, schema.VALIDATION, 64)
    scored = predict(run.scorer, validation)
    np.testing.assert_allclose(metrics.auc(scored.label, scored.logit), best["auc"], rtol=1e-6)
    again = fit_and_predict(run.scorer, validation, scoring_graph(run.scorer))
    np.testing.assert_allclose(again.logit, scored.logit, rtol=1e-4, atol=1e-4)
    # Of a regression with an intercept the mean probability is that of a click.
    clicked = 1 / (1 + np.exp(-again.logit.astype(np.float64)))
    np.testing.assert_allclose(clicked.mean(), scored.label.mean(), atol=1e-4)


def test_evaluating_tells_the_weight(whole, popular, capsys):
    row = evaluate.evaluate([whole], popular)[str(whole)]
    told = runs.read_json(whole / runs.METRICS_FILE, {})[schema.TEST]
    assert row["popularity_weight"] == told["popularity_weight"] > 0
    run_main(evaluate, f"--run_dir={whole}", f"--data_dir={popular}")
    said = capsys.readouterr().out
    assert f"stage2 adds {row['popularity_weight']:.3f} log(1 + clicks in training)" in said


def test_every_replica_has_the_weight(popular, two_cpus):
    validation = data.read_split(popular, schema.STAGE2, schema.VALIDATION, 16)
    strategy = cpu_strategy(two_cpus)
    one = _scorer(popular, "model.name=mean_pool", ON)
    with strategy.scope():
        mirrored = _scorer(popular, "model.name=mean_pool", ON)
    expected, found = (
        fit_and_predict(scorer, validation, scoring_graph(scorer)) for scorer in (one, mirrored)
    )
    np.testing.assert_array_equal(found.logit, expected.logit)
    assert one.popularity.weight > 0
    for replica in mirrored.popularity.fit.values:
        np.testing.assert_array_equal(replica, one.popularity.fit)
