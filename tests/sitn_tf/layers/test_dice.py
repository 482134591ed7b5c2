"""Dice and the MLP that has it, against loops written from the paper."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.layers.attention import ActivationUnit
from sitn_tf.layers.dice import WINDOW, Dice, DiceMlp
from tests.sitn_tf import reference

D = 4


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def _with_alpha(layer, rng):
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return layer


def test_dice_is_its_formula_over_what_counts(rng):
    layer = Dice()
    layer.build([None, 3])
    _with_alpha(layer, rng)
    values = rng.normal(2.0, 3.0, size=(4, 5, 3)).astype(np.float32)
    counted = rng.random((4, 5)) < 0.6
    seen = values[counted].astype(np.float64)
    mean, variance = seen.mean(axis=0), seen.var(axis=0)
    found = layer(values, tf.constant(counted), training=True).numpy()
    expected = reference.dice(values, mean, variance, layer.alpha.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # What is not counted changes nothing.
    noise = np.where(counted[..., None], values, 99.0).astype(np.float32)
    again = layer(noise, tf.constant(counted), training=True).numpy()
    np.testing.assert_array_equal(again[counted], found[counted])


def test_serving_has_the_mean_of_the_moments_of_training(rng):
    layer = Dice()
    layer.build([None, 2])
    _with_alpha(layer, rng)
    batches = rng.normal(1.0, 2.0, size=(3, 8, 2)).astype(np.float32)
    for batch in batches:
        layer(batch, training=True)
        layer(batch, tf.zeros([8], tf.bool), training=True)  # nothing counts: nothing moves
    mean, variance = batches.mean(axis=1).mean(axis=0), batches.var(axis=1).mean(axis=0)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.variance, variance, rtol=1e-5)
    found = layer(batches[0])
    expected = reference.dice(batches[0], mean, variance, layer.alpha.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(batches[0][:1]), found[:1], rtol=1e-6)


def test_the_running_mean_forgets():
    layer = Dice()
    layer.build([None, 1])
    layer(tf.ones([2, 1]), training=True)
    step = tf.function(lambda: layer(tf.zeros([2, 1]), training=True))
    for _ in range(int(4 * WINDOW)):
        step()
    assert layer.steps_seen.numpy() == WINDOW
    assert layer.mean.numpy() < 1.1 / WINDOW * np.exp(-2.9)


def test_moments_of_nothing_and_of_one_are_finite():
    layer = Dice()
    layer.build([None, 2])
    values = tf.Variable([[3.0, -1.0]])
    for counted in ([True], [False]):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(values, tf.constant(counted), training=True))
        for gradient in tape.gradient(total, [values, *layer.trainable_variables]):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("sizes", [(4, 3), (7, 0)])
def test_replicas_have_the_moments_and_gradients_of_one(rng, two_cpus, sizes):
    values = tf.constant(rng.normal(size=(7, 5, 3)), tf.float32)
    batch = {"x": values, "counted": tf.constant(rng.random((7, 5)) < 0.7)}
    weight = tf.constant(rng.normal(size=(3,)), tf.float32)

    def run(strategy, sizes):
        with strategy.scope():
            layer = Dice()
            layer.build([None, 3])
        layer.alpha.assign([0.3, -0.2, 1.5])

        def on_replica(part):
            with tf.GradientTape() as tape:
                tape.watch(part["x"])
                out = layer(part["x"], part["counted"], training=True)
                total = tf.reduce_sum(tf.square(out) * weight)
            by_x, by_alpha = tape.gradient(total, [part["x"], *layer.trainable_variables])
            return by_x, by_alpha, total

        parts = strategy.run(tf.function(on_replica), args=(split_rows(strategy, batch, sizes),))
        by_x = tf.concat(strategy.experimental_local_results(parts[0]), axis=0)
        sums = [strategy.reduce("SUM", part, axis=None) for part in parts[1:]]
        return [by_x, *sums, *(tf.convert_to_tensor(w) for w in layer.non_trainable_variables)]

    expected = run(cpu_strategy(two_cpus[:1]), (7,))
    for ours, one in zip(run(cpu_strategy(two_cpus), sizes), expected, strict=True):
        np.testing.assert_allclose(ours, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_unit_is_a_sum_over_pairs_without_softmax(rng, training):
    layer = ActivationUnit(D, (5, 3), "dice")
    layer.build(None)
    _with_alpha(layer, rng)
    sequence, queries = rng.normal(size=(3, 4, D)), rng.normal(size=(3, 2, D))
    mask = np.arange(4) < np.array([4, 2, 0])[:, None]
    shown = np.array([[True, True], [True, False], [True, True]])
    keys = layer.project(tf.constant(sequence, tf.float32), tf.constant(mask))
    found = layer.attend(
        tf.constant(queries, tf.float32), keys, tf.constant(shown), training=training
    ).numpy()
    k, q = sequence[:, :, None], queries[:, None]
    pairs = np.concatenate(np.broadcast_arrays(q, k, q - k, q * k), axis=-1)
    counted = mask[:, :, None] & shown[:, None]
    *hidden, last = layer.unit.layers
    for dense, dice in zip(hidden, layer.dices, strict=True):
        pairs = pairs @ dense.kernel.numpy() + dense.bias.numpy()
        seen = pairs[counted]
        mean, variance = (seen.mean(0), seen.var(0)) if training else (0.0, 1.0)
        pairs = reference.dice(pairs, mean, variance, dice.alpha.numpy())
    weights = (pairs @ last.kernel.numpy() + last.bias.numpy()) * mask[:, :, None, None]
    expected = (weights * k).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_mlp_with_dice(rng):
    layer = DiceMlp((5, 3), 1)
    values = rng.normal(size=(6, 4)).astype(np.float32)
    layer(values)
    _with_alpha(layer, rng)
    expected = values
    for dense, dice in zip(layer.hidden, layer.dices, strict=True):
        expected = expected @ dense.kernel.numpy() + dense.bias.numpy()
        mean, variance = expected[:5].mean(0), expected[:5].var(0)
        expected = reference.dice(expected, mean, variance, dice.alpha.numpy())
    expected = expected @ layer.last.kernel.numpy() + layer.last.bias.numpy()
    found = layer(values, tf.constant([True] * 5 + [False]), training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_mlp_with_relu_is_the_plain_one(rng):
    layer = DiceMlp((5,), 2, "relu", dropout=0.5)
    values = rng.normal(size=(6, 4)).astype(np.float32)
    found = layer(values)
    dense = [(d.kernel.numpy(), d.bias.numpy()) for d in (*layer.hidden, layer.last)]
    np.testing.assert_allclose(found, reference.mlp(values, dense), rtol=1e-5, atol=1e-6)
    assert (layer(values, training=True).numpy() != found.numpy()).any()
