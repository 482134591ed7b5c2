"""Finite losses and gradients whatever the batch, temperature and precision."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sitn_tf import config, runs, schema
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.models.sitn import KEPT
from sitn_tf.sections import KEPT_CONTRAST
from sitn_tf.training import stage2
from tests.small_dataset import (
    MAX_HISTORY,
    SOURCE_ITEMS,
    TARGET_ITEMS,
)

PRECISIONS = ("float32", "bfloat16", "float16")
READINGS = (*((0.05, precision) for precision in PRECISIONS), (1.0, "float16"))
"""Temperature and precision; a model is made of each."""


@pytest.fixture(scope="module")
def tables(small):
    return runs.read_tables(small, schema.read_manifest(small), config.tiny())


def _settings(temperature, precision):
    """The default configuration in everything that could overflow; narrow, for speed."""
    chosen = config.default()
    return dataclasses.replace(
        chosen,
        model=dataclasses.replace(chosen.model, embedding_dim=8, precision=precision),
        encoder=dataclasses.replace(chosen.encoder, heads=2),
        contrast=dataclasses.replace(
            chosen.contrast, temperature=temperature, granularities=(4, 16)
        ),
    )


@pytest.fixture(scope="module")
def pretrainers(tables):
    """Each model once."""
    return functools.cache(
        lambda *reading: make_pretrainer(_settings(*reading), tables, MAX_HISTORY)
    )


@pytest.fixture(scope="module")
def scorers(tables):
    """Each model once."""
    return functools.cache(
        lambda precision: make_scorer(_settings(0.1, precision), tables, MAX_HISTORY)
    )


STEP = np.int64(7)


def _gradients(model, loss_of):
    with tf.GradientTape() as tape:
        loss = loss_of()
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, [tf.convert_to_tensor(g) for g in gradients if g is not None]


def _histories(rng, rows, items, longest):
    """Histories of 0 to `longest` items, so that some are empty and some have one item."""
    lengths = rng.integers(0, longest + 1, size=rows)
    ids = rng.integers(1, items, size=(rows, MAX_HISTORY))
    return tf.constant(np.where(np.arange(MAX_HISTORY) < lengths[:, None], ids, 0))


def _users(rng, rows, distinct):
    return tf.constant([f"u{u}" for u in rng.integers(0, max(distinct, 1), size=rows)])


def _stage_1_batch(rows, distinct, longest, seed):
    rng = np.random.default_rng(seed)
    return {
        "user_id": _users(rng, rows, distinct),
        "source_history": _histories(rng, rows, SOURCE_ITEMS, longest),
        "target_history": _histories(rng, rows, TARGET_ITEMS, longest),
    }


def _assert_finite(loss, gradients):
    assert np.isfinite(loss)
    assert gradients
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@settings(max_examples=20)
@given(
    rows=st.integers(1, 600),
    repeats=st.sampled_from([1, 3, 1000]),
    longest=st.sampled_from([0, 1, MAX_HISTORY]),
    reading=st.sampled_from(READINGS),
    seed=st.integers(0, 10**6),
)
@example(rows=4096, repeats=1, longest=8, reading=(0.05, "float16"), seed=0)
@example(rows=32, repeats=1, longest=8, reading=(0.05, "bfloat16"), seed=0)
@example(rows=1, repeats=1, longest=8, reading=(0.05, "float32"), seed=0)
def test_stage_1_is_finite(pretrainers, rows, repeats, longest, reading, seed):
    batch = _stage_1_batch(rows, rows // repeats, longest, seed)
    model = pretrainers(*reading)
    _assert_finite(*_gradients(model, lambda: model.loss(batch, STEP)["loss"]))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", [1, 32, 2048])
@pytest.mark.parametrize("longest", [0, 1, MAX_HISTORY])
def test_stage_2_is_finite(scorers, precision, rows, longest):
    scorer = scorers(precision)
    rng = np.random.default_rng(rows)
    batch = {
        "source_history": _histories(rng, rows, SOURCE_ITEMS, longest),
        "target_history": _histories(rng, rows, TARGET_ITEMS, longest),
        "candidates": tf.constant(rng.integers(0, TARGET_ITEMS, size=(rows, 5))),
        "labels": tf.constant(rng.integers(0, 2, size=(rows, 5))),
    }
    _assert_finite(*_gradients(scorer, lambda: stage2.scorer_losses(scorer, batch)["loss"]))


def test_the_contrast_that_stage_2_keeps_is_float32(scorers):
    rng, kept = np.random.default_rng(0), {}
    batch = {
        "user_id": _users(rng, 32, 32),
        "source_history": _histories(rng, 32, SOURCE_ITEMS, MAX_HISTORY),
        "target_history": _histories(rng, 32, TARGET_ITEMS, MAX_HISTORY),
        "candidates": tf.constant(rng.integers(2, TARGET_ITEMS, size=(32, 5))),
        "labels": tf.constant(rng.integers(0, 2, size=(32, 5))),
    }
    for chosen in ("float32", "bfloat16"):
        scorer = scorers(chosen)
        scorer.contrast_weight = KEPT_CONTRAST
        for ours, theirs in zip(scorer.weights, scorers("float32").weights, strict=True):
            ours.assign(theirs)
        kept[chosen] = stage2.scorer_losses(scorer, batch)[KEPT]
        scorer.contrast_weight = 0.0
    assert kept["bfloat16"].dtype == tf.float32
    assert float(kept["bfloat16"]) == pytest.approx(float(kept["float32"]), rel=0.03)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_low_precision_is_near_float32(tables, precision):
    batch = _stage_1_batch(64, 64, MAX_HISTORY, 1)
    losses = {}
    for chosen in ("float32", precision):
        tf.keras.utils.set_random_seed(0)
        model = make_pretrainer(_settings(0.1, chosen), tables, MAX_HISTORY)
        losses[chosen] = float(model.loss(batch, STEP)["loss"])
        assert all(v.dtype in (tf.float32, tf.int32) for v in model.variables)
    assert losses[precision] != losses["float32"]
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.03)


def test_the_contrast_keeps_float32(tables):
    model = make_pretrainer(_settings(0.1, "float16"), tables, MAX_HISTORY)
    batch = _stage_1_batch(8, 8, MAX_HISTORY, 1)
    assert [p.dtype for p in model(batch)] == [tf.float32, tf.float32]
    assert model.loss(batch, STEP)["loss"].dtype == tf.float32
