"""MV-DNN against NumPy, and stage 2 of a model that learns from requests of both domains."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_scorer
from sitn_tf.training import stage2
from sitn_tf.training.stage import Stage
from tests.sitn_tf.models.joint import both

SETTINGS = ("model.name=mv_dnn", "stage2.batch_size=16", "stage2.patience=9")


@pytest.fixture(scope="module")
def settings():
    return config.override(config.tiny(), SETTINGS)


@pytest.fixture
def scorer(small, settings):
    tf_keras.utils.set_random_seed(3)
    tables = runs.read_tables(small, schema.read_manifest(small), settings)
    return make_scorer(settings, tables, 8)


def _tanh_layers(x, view):
    for layer in view.layers:
        x = np.tanh(x @ layer.kernel.numpy() + layer.bias.numpy())
    return x / np.linalg.norm(x)


def _reference_logit(scorer, histories, domain, candidate):
    means = [
        scorer.items[of](tf.constant(ids, tf.int64)).numpy().mean(axis=0)
        if len(ids)
        else np.zeros(scorer.config.model.embedding_dim)
        for of, ids in histories.items()
    ]
    user = _tanh_layers(np.concatenate(means), scorer.user_view)
    item = scorer.items[domain](tf.constant([candidate], tf.int64)).numpy()[0]
    cosine = user @ _tanh_layers(item, scorer.item_views[domain])
    return np.exp(scorer.scale.numpy()) * cosine + scorer.bias[domain].numpy()


@pytest.mark.parametrize("domain", schema.DOMAINS)
def test_a_score_is_a_scaled_cosine_of_two_views(scorer, domain):
    scorer.bias[domain].assign(0.3)
    for source, target in (([4, 9, 9], [5, 2]), ([3, 7], [])):
        inputs = {
            "source_history": tf.constant([[*source, 0]], tf.int64),
            "target_history": tf.constant([[*target, 0, 0]], tf.int64),
            schema.CANDIDATES_OF_DOMAIN[domain].name: tf.constant([[3, 7, 2]], tf.int64),
        }
        logits = scorer(inputs, domain=domain).numpy()[0]
        histories = {schema.SOURCE: source, schema.TARGET: target}
        expected = [_reference_logit(scorer, histories, domain, c) for c in (3, 7, 2)]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_the_loss_is_of_both_domains_requests(small, scorer):
    batch, source = both(small)
    losses = stage2.scorer_losses(scorer, batch)
    assert list(losses) == ["loss", "click", "source_click"]
    logits = scorer(source, domain=schema.SOURCE).numpy().astype(np.float64)
    labels = source["labels"].numpy()
    entropy = np.log1p(np.exp(logits)) - labels * logits
    np.testing.assert_allclose(losses["source_click"], entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(losses["loss"], losses["click"] + losses["source_click"], rtol=1e-6)


def test_batches_of_the_two_domains_are_split_each_by_its_own_rows(small, two_cpus):
    target = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 5)))
    source = next(iter(data.read_split(small, schema.SOURCE_REQUESTS, schema.TRAIN, 8)))
    strategy = cpu_strategy(two_cpus)
    parts = split_rows(strategy, data.with_source_requests(target, source))
    rows = {
        name: [len(part) for part in strategy.experimental_local_results(values)]
        for name, values in parts.items()
    }
    assert rows["user_id"] == [3, 2]
    assert rows["source_requests/user_id"] == [4, 4]


def _read_users(stage, epoch, skip=0):
    return [
        data.source_requests(batch)["user_id"].numpy().tolist()
        for batch in stage.batches(epoch, skip)
    ]


@pytest.mark.parametrize("size", [0, 50])
def test_source_requests_go_on_where_an_epoch_was_left(small, settings, size):
    stage = Stage(schema.STAGE2, config.override(settings, [f"joint.batch_size={size}"]), small)
    assert stage.source_steps() == ((15, 8) if size == 0 else (50, 3))
    whole = [_read_users(stage, epoch) for epoch in (1, 2)]
    assert [len(epoch) for epoch in whole] == [8, 8]
    for skip in (1, 5):
        assert _read_users(stage, 2, skip) == whole[1][skip:]
    one_pass = whole[0] if size == 0 else whole[0][:3]
    once = [user for users in one_pass for user in users]
    assert sorted(once) == sorted(f"u{u}".encode() for u in range(120))


def test_without_source_requests_it_says_how_to_have_them(small, settings, tmp_path):
    without = tmp_path / "without"
    shutil.copytree(small, without)
    manifest = json.loads((without / schema.MANIFEST_FILE).read_text())
    del manifest["records"]["source_requests"]
    (without / schema.MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"pipelines\.build_dataset --source_requests"):
        Stage(schema.STAGE2, settings, without)
    too_many = config.override(settings, ["joint.batch_size=121"])
    with pytest.raises(InputError, match=r"joint\.batch_size=121 is above the data set's 120"):
        Stage(schema.STAGE2, too_many, small)
