"""DIN and DIEN as whole models: what they see, what they can learn, and on several replicas."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.distributed.tables import is_to_be_cut
from sitn_tf.layers import randomness
from sitn_tf.models.registry import make_scorer
from sitn_tf.training import stage2
from tests.eagerly import op_by_op
from tests.sitn_tf import reference
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches

MODELS = ["din", "dien"]
L2 = ["model.name=din", "din.l2=0.5"]


def _settings(name, *settings):
    """Both domains, in which the weights of both sequences are seen."""
    return config.override(config.tiny(), [name, "model.use_source=true", *settings])


def _scorer(small, *settings):
    chosen = _settings(*settings)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    return make_scorer(chosen, tables, 6)


def _batch(small, rows=12):
    return next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, rows)))


def _losses(scorer, batch):
    with randomness.at_step(0, tf.constant(0, tf.int64)):
        return stage2.scorer_losses(scorer, batch)


def _spread(scorer):
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.2))


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_loss_of_training(small, name):
    scorer, batch = _scorer(small, f"model.name={name}"), _batch(small)
    _spread(scorer)
    wide = {"source_history": 3, "target_history": 2, "candidates": 4, "labels": 4}
    padded = batch | {key: tf.pad(batch[key], [[0, 0], [0, n]]) for key, n in wide.items()}
    ours, theirs = (stage2.scorer_losses(scorer, some)["loss"] for some in (padded, batch))
    if name == "din":
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    clicks = [stage2.mean_click_loss(scorer(some, training=True), some) for some in (padded, batch)]
    np.testing.assert_allclose(*clicks, rtol=1e-5)


def test_clicks_are_read_of_tables_that_may_be_cut_and_are_not_the_models(small):
    """A constant of more than 128 numbers would be captured, and go to workers as a whole."""
    made = {}

    def creator(make, **given):
        made[given["name"]] = is_to_be_cut()
        return make(**given)

    with tf.variable_creator_scope(creator):
        scorer = _scorer(small, *L2)
    assert [made["source_clicks"], made["target_clicks"]] == [True, True]
    counts = runs.read_tables(small, schema.read_manifest(small), scorer.config)["target"].count
    found = scorer.clicks_of["target"](tf.constant([3, 2, 3], tf.int64))
    np.testing.assert_array_equal(found, counts[[3, 2, 3]])
    saved = [v for v in tf.train.TrackableView(scorer).descendants() if hasattr(v, "assign")]
    assert len(saved) >= len(scorer.variables)
    assert not [v.name for v in saved if "clicks" in v.name]


def _gradients_at_a_step(trial, batch, step):
    with randomness.at_step(0, step), tf.GradientTape() as tape:
        losses = trial.losses(batch, step)
    return losses, tape.gradient(losses["loss"], trial.model.trainable_variables)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (L2, (7, 4)),
        pytest.param(["model.name=dien"], (7, 4), marks=pytest.mark.slow),  # as in ten steps
        (["model.name=dien"], (11, 0)),
    ],
)
def test_two_replicas_are_one(small, two_cpus, settings, sizes):
    chosen = _settings(*settings)
    batch = read_batches(small, schema.STAGE2)[0]
    outcomes = []
    # Op by op a GRU without rows takes no step, so its weights have no gradient.
    with op_by_op() if all(sizes) else contextlib.nullcontext():
        for devices, split in ((1, (ROWS,)), (2, sizes)):
            trial = Trial(small, schema.STAGE2, cpu_strategy(two_cpus[:devices]), chosen)
            # A step is known to the thread of each replica, so within it.
            trial.gradients_of = functools.partial(_gradients_at_a_step, trial)
            gradients = trial.loss_and_gradients(batch, split)
            statistics = [tf.convert_to_tensor(v) for v in trial.model.non_trainable_variables]
            outcomes.append([*gradients, *statistics])
    assert_same(*outcomes)


def test_the_losses_of_the_regularisation_and_of_the_next_click_are_shown(small):
    batch = _batch(small)
    plain = _losses(_scorer(small, "model.name=din"), batch)
    shown = _losses(_scorer(small, *L2), batch)
    assert list(plain) == ["loss"]
    assert list(shown) == ["loss", "click", "l2"]
    np.testing.assert_allclose(shown["click"], plain["loss"], rtol=1e-6)
    scorer = _scorer(small, *L2)
    expected = 0.0
    for domain, parts in (
        ("source", ["source_history"]),
        ("target", ["target_history", "candidates"]),
    ):
        items = scorer.items[domain]
        ids = np.unique(np.concatenate([batch[part].numpy().ravel() for part in parts]))
        for j in ids[ids > 0]:
            expected += 0.25 * np.sum(items.ids.numpy()[j] ** 2) / max(items.table.count[j], 1)
    np.testing.assert_allclose(shown["l2"], expected, rtol=1e-5)
    assert list(_losses(_scorer(small, "model.name=dien"), batch)) == [
        "loss",
        "click",
        "next_click",
    ]
    without = _scorer(small, "model.name=dien", "dien.auxiliary_weight=0")
    assert list(_losses(without, batch)) == ["loss"]


def test_dien_is_its_equations(small):
    scorer = _scorer(small, "model.name=dien", "mlp.products=false")
    _spread(scorer)
    histories = {"source": [4, 9, 9, 3], "target": [5, 2]}
    candidates = [3, 7, 2]
    batch = {f"{d}_history": tf.constant([[*h, 0]], tf.int64) for d, h in histories.items()}
    logits = scorer(batch | {"candidates": tf.constant([candidates], tf.int64)}).numpy()[0]
    for candidate, logit in zip(candidates, logits, strict=True):
        v = scorer.items["target"](tf.constant([candidate], tf.int64)).numpy()[0]
        parts = []
        for domain, history in histories.items():
            e = scorer.items[domain](tf.constant(history, tf.int64)).numpy()
            extractor, evolution = (
                [w.numpy() for w in (gru.kernel, gru.recurrent, gru.bias)]
                for gru in (scorer.extractors[domain], scorer.evolutions[domain])
            )
            h = reference.augru(e, np.ones(len(e)), *extractor)
            scores = np.exp(h @ scorer.relevance[domain].numpy() @ v)
            parts.append(reference.augru(h, scores / scores.sum(), *evolution)[-1])
        values = np.concatenate([*parts, v])
        for dense, dice in zip(scorer.mlp.hidden, scorer.mlp.dices, strict=True):
            values = values @ dense.kernel.numpy() + dense.bias.numpy()
            values = reference.dice(values, 0.0, 1.0, dice.alpha.numpy())
        last = scorer.mlp.last
        expected = values @ last.kernel.numpy() + last.bias.numpy()
        np.testing.assert_allclose(logit, expected[0], rtol=1e-4, atol=1e-5)
