"""GRU and AUGRU against loops written from the paper, one sequence at a time."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.layers.attention import masked_softmax
from sitn_tf.layers.gru import Gru
from tests.sitn_tf import reference

WIDTH, H = 5, 3


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def layer(rng):
    layer = Gru(H)
    layer.build([None, None, WIDTH])
    layer.bias.assign(rng.normal(size=layer.bias.shape))
    return layer


def _weights(layer):
    return layer.kernel.numpy(), layer.recurrent.numpy(), layer.bias.numpy()


def _sequence(rng):
    mask = np.arange(6) < np.array([6, 2, 0, 1])[:, None]
    return rng.normal(size=(4, 6, WIDTH)).astype(np.float32), mask


def test_gru_is_its_equations_and_padding_keeps_the_state(rng, layer):
    x, mask = _sequence(rng)
    states = layer(x, tf.constant(mask)).numpy()
    for row in range(4):
        length = int(mask[row].sum())
        expected = reference.augru(x[row, :length], np.ones(length), *_weights(layer))
        np.testing.assert_allclose(states[row, :length], expected, rtol=1e-5, atol=1e-6)
        last = states[row, length - 1] if length else np.zeros(H, np.float32)
        np.testing.assert_array_equal(states[row, length:], np.tile(last, (6 - length, 1)))


def test_augru_is_its_equations_for_each_candidate(rng, layer):
    x, mask = _sequence(rng)
    attention = masked_softmax(
        tf.constant(rng.normal(size=(4, 2, 6)), tf.float32), tf.constant(mask)[:, None]
    )
    found = layer.last_states(x, attention).numpy()
    assert found.shape == (4, 2, H)
    for row, candidate in np.ndindex(4, 2):
        length = int(mask[row].sum())
        scores = attention.numpy()[row, candidate, :length]
        states = reference.augru(x[row, :length], scores, *_weights(layer))
        expected = states[-1] if length else np.zeros(H)
        np.testing.assert_allclose(found[row, candidate], expected, rtol=1e-5, atol=1e-6)


def test_what_is_padded_and_how_wide_changes_no_bit(rng, layer):
    x, mask = _sequence(rng)
    noise = np.where(mask[..., None], x, 50.0).astype(np.float32)
    wider = np.concatenate([noise, np.full((4, 3, WIDTH), 7.0, np.float32)], axis=1)
    wider_mask = np.concatenate([mask, np.zeros((4, 3), bool)], axis=1)
    plain = layer(x, tf.constant(mask)).numpy()
    padded = layer(wider, tf.constant(wider_mask)).numpy()
    np.testing.assert_allclose(padded[:, :6], plain, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(padded[:, 6:], np.repeat(padded[:, 5:6], 3, axis=1))


def test_one_graph_takes_every_length(rng, layer):
    traces = 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, WIDTH], tf.float32),
            tf.TensorSpec([None, None], tf.bool),
        ]
    )
    def graph(x, mask):
        nonlocal traces
        traces += 1
        with tf.GradientTape() as tape:
            tape.watch(x)
            states = layer(x, mask)
            last = layer.last_states(x, tf.cast(mask, tf.float32)[:, None])
            total = tf.reduce_sum(states) + tf.reduce_sum(last)
        return states, last, tape.gradient(total, x)

    for rows, length in ((2, 4), (1, 1), (3, 0), (0, 2)):
        x = tf.constant(rng.normal(size=(rows, length, WIDTH)), tf.float32)
        states, last, gradient = graph(x, tf.ones([rows, length], tf.bool))
        assert states.shape == (rows, length, H)
        assert last.shape == (rows, 1, H)
        assert gradient.shape == x.shape
        np.testing.assert_allclose(states, layer(x, tf.ones([rows, length], tf.bool)), atol=1e-6)
        if length:
            np.testing.assert_allclose(last[:, 0], states[:, -1], atol=1e-6)
    assert traces == 1


def test_gradient_is_that_of_a_loop_without_masks(rng, layer):
    x = tf.constant(rng.normal(size=(1, 3, WIDTH)), tf.float32)
    attention = tf.constant([[[0.2, 0.5, 0.3]]])

    def by_hand():
        state = tf.zeros([1, H])
        for t in range(3):
            part = x[:, t] @ layer.kernel + layer.bias
            recurrent = state @ layer.recurrent
            gates = tf.sigmoid(part[:, : 2 * H] + recurrent[:, : 2 * H])
            new = tf.tanh(part[:, 2 * H :] + gates[:, H:] * recurrent[:, 2 * H :])
            update = attention[:, 0, t, None] * gates[:, :H]
            state = (1 - update) * state + update * new
        return state

    results = []
    for function in (by_hand, tf.function(lambda: layer.last_states(x, attention)[:, 0])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            state = function()
            total = tf.reduce_sum(tf.square(state))
        results.append([state, *tape.gradient(total, [x, *layer.trainable_variables])])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
