"""DIEN's auxiliary loss and what it draws."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.layers import randomness
from sitn_tf.layers.next_click import items_of_others, next_click_loss
from tests.sitn_tf import reference

IDS = np.array([[2, 3, 3, 0], [4, 5, 0, 0], [0, 0, 0, 0], [6, 7, 8, 9]])


def _draw(ids, step=0, number=3):
    with randomness.at_step(5, tf.constant(step, tf.int64)):
        return items_of_others(tf.convert_to_tensor(ids), number)


def test_the_loss_is_its_formula():
    rng = np.random.default_rng(2)
    states, clicks, against = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    lengths = np.array([5, 2, 0, 1])
    follows = (np.arange(5) < lengths[:, None]) & (np.arange(5) > 0)
    differs = rng.random((4, 5)) < 0.6
    found = next_click_loss(*map(tf.constant, (states, clicks, against, follows, differs)))
    rows = [
        reference.next_click(states[row, :n], clicks[row, :n], against[row, :n], differs[row])
        for row, n in enumerate(lengths)
    ]
    total, count = map(sum, zip(*rows, strict=True))
    np.testing.assert_allclose(found, total / count, rtol=1e-5)
    nothing = tf.zeros_like(tf.constant(follows))
    assert next_click_loss(states, clicks, against, nothing, nothing) == 0.0
    assert next_click_loss(states[:, :0], clicks[:, :0], against[:, :0], *2 * [nothing[:, :0]]) == 0


def test_what_is_drawn_is_of_other_histories_and_as_often_as_it_is_there():
    drawn = np.stack([_draw(IDS, step) for step in range(300)])
    for row, own in enumerate(IDS):
        others = np.delete(IDS, row, axis=0)
        expected = collections.Counter(others[others > 0].tolist())
        found = collections.Counter(drawn[:, row].ravel().tolist())
        assert found.keys() == expected.keys()
        assert not found.keys() & set(own[own > 0].tolist())
        for item, times in expected.items():
            assert found[item] / 1200 == pytest.approx(times / expected.total(), abs=0.05)


def test_the_same_step_draws_the_same():
    np.testing.assert_array_equal(_draw(IDS, 4), _draw(IDS, 4))
    assert (_draw(IDS, 4) != _draw(IDS, 5)).numpy().any()
    assert (_draw(IDS, 4) != _draw(IDS, 4, number=9)).numpy().any()


def test_without_others_there_is_nothing_to_draw():
    np.testing.assert_array_equal(_draw(IDS[:1]), np.zeros((1, 4)))
    np.testing.assert_array_equal(_draw(np.zeros([2, 3], np.int64)), np.zeros((2, 3)))
    assert _draw(IDS[:, :0]).shape == (4, 0)
    np.testing.assert_array_equal(_draw(IDS[1:3])[0], np.zeros(4))
    assert (_draw(IDS[1:3])[1].numpy() > 0).all()


@pytest.mark.parametrize("sizes", [(1, 3), (4, 0)])
def test_replicas_draw_what_one_would(two_cpus, sizes):
    strategy = cpu_strategy(two_cpus)
    parts = strategy.run(
        tf.function(lambda part: _draw(part["ids"])),
        args=(split_rows(strategy, {"ids": tf.constant(IDS)}, sizes),),
    )
    found = tf.concat(strategy.experimental_local_results(parts), axis=0)
    np.testing.assert_array_equal(found, _draw(IDS))
