"""DIN's regularisation: once an item of the global batch, by its rarity, and of no other row."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.layers.mini_batch_l2 import mini_batch_l2

IDS = {
    "history": np.array([[2, 3], [3, 0], [6, 6]]),
    "candidates": np.array([[3], [1], [2]]),
}
COUNT = np.array([0, 0, 8, 4, 2, 2, 1], np.float32)


@pytest.fixture
def table():
    return tf.Variable(np.random.default_rng(1).normal(size=(7, 3)), dtype=tf.float32)


def _tensors():
    return {name: tf.constant(ids) for name, ids in IDS.items()}


def _loss_and_gradient(table, part):
    with tf.GradientTape() as tape:
        loss = mini_batch_l2(
            table.sparse_read, lambda ids: tf.gather(COUNT, ids), list(part.values())
        )
    return loss, tape.gradient(loss, table)


def test_its_gradient_is_the_weights_over_their_counts(table):
    loss, gradient = _loss_and_gradient(table, _tensors())
    weights, counts = table.numpy(), {1: 1.0, 2: 8.0, 3: 4.0, 6: 1.0}
    expected = sum(0.5 * np.sum(weights[j] ** 2) / n for j, n in counts.items())
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert isinstance(gradient, tf.IndexedSlices)
    assert sorted(gradient.indices.numpy()) == sorted(counts)
    for j, value in zip(gradient.indices.numpy(), gradient.values.numpy(), strict=True):
        np.testing.assert_allclose(value, weights[j] / counts[j], rtol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 1), (0, 3)])
def test_replicas_share_it(table, two_cpus, sizes):
    loss, gradient = _loss_and_gradient(table, _tensors())
    strategy = cpu_strategy(two_cpus)

    def on_replica(part):
        mine, slices = _loss_and_gradient(table, part)
        return mine, tf.convert_to_tensor(slices)

    parts = strategy.run(tf.function(on_replica), args=(split_rows(strategy, _tensors(), sizes),))
    found = [strategy.reduce("SUM", part, axis=None) for part in parts]
    np.testing.assert_allclose(found[0], loss, rtol=1e-6)
    np.testing.assert_allclose(found[1], tf.convert_to_tensor(gradient), rtol=1e-6)
