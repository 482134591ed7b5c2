"""Pairs against a loop, crosses and the digits of ids against Python's own arithmetic."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from export.item_vectors import ItemVectors
from sitn_tf.layers.factorization import (
    HashedCrosses,
    crossed_rows,
    digits_of,
    ids_of,
    most_recent,
    pairwise,
)

PINNED = [510, 868, 522, 39]


def test_pairs_are_those_of_a_loop():
    fields = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    expected = np.zeros((3, 2))
    for i, j in itertools.combinations(range(5), 2):
        expected += np.sum(fields[..., i, :] * fields[..., j, :], axis=-1)
    np.testing.assert_allclose(pairwise(tf.constant(fields)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pairwise(tf.constant(fields[..., :1, :])), np.zeros((3, 2)))
    # (1, 2), (3, 0), (0, 1): 3 + 2 + 0.
    assert float(pairwise(tf.constant([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]))) == 5.0


def _row_of(candidate, clicked, buckets):
    """1 + SplitMix64's finish of candidate + clicked * golden ratio, with Python's integers."""
    x = (candidate + clicked * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return 1 + ((x ^ (x >> 31)) >> 33) % buckets


def test_the_row_of_a_cross_is_pinned_and_of_integers():
    """Another hash would give the weights of every trained table away to other pairs."""
    rows = crossed_rows(
        tf.constant([[2, 3, 0]], tf.int64), tf.constant([[7, 0, 10**9]], tf.int64), 1000
    )
    pairs = [(2, 7), (2, 10**9), (3, 7), (3, 10**9)]
    expected = [_row_of(*pair, 1000) for pair in pairs]
    assert expected == PINNED
    first, second, third, fourth = expected
    wanted = [[first, 0, second], [third, 0, fourth], [0, 0, 0]]
    assert rows.numpy()[0].tolist() == wanted
    in_graph = tf.function(crossed_rows)(
        tf.constant([[2, 3, 0]], tf.int64), tf.constant([[7, 0, 10**9]], tf.int64), 1000
    )
    np.testing.assert_array_equal(in_graph, rows)


def test_crosses_fill_their_buckets_and_tell_the_sides_apart():
    ids = tf.range(2, 102, dtype=tf.int64)[None]
    rows = crossed_rows(ids, ids, 16).numpy()
    assert sorted(set(rows.ravel().tolist())) == list(range(1, 17))
    counts = np.bincount(rows.ravel())[1:]
    assert counts.min() > 0.8 * 10_000 / 16
    wide = crossed_rows(ids, ids, 2**30).numpy()[0]
    assert len(np.unique(wide)) >= 9_990
    assert (wide != wide.T).sum() >= 9_890


def test_crosses_add_up_the_weights_of_pairs():
    crosses = HashedCrosses(50, name="crosses")
    shown, clicked = (
        tf.constant([[3, 0], [4, 5]], tf.int64),
        tf.constant([[9, 8], [0, 9]], tf.int64),
    )
    np.testing.assert_array_equal(crosses(shown, clicked), np.zeros((2, 2)))
    crosses.table.assign(tf.random.normal(crosses.table.shape))
    w = crosses.table.numpy()[:, 0]
    rows = crossed_rows(shown, clicked, 50).numpy()
    expected = [[w[rows[0, 0, 0]] + w[rows[0, 0, 1]], 0], [w[rows[1, 0, 1]], w[rows[1, 1, 1]]]]
    np.testing.assert_allclose(crosses(shown, clicked), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("ids", "count", "expected"),
    [
        ([2, 3, 4, 5], 2, [5, 4]),
        ([2, 3, 0, 0], 3, [3, 2, 0]),
        ([2, 0, 3, 3], 3, [3, 0, 2]),  # gaps are no items, repeats are one
        ([0, 0, 0, 0], 2, [0, 0]),
        ([], 2, [0, 0]),
    ],
)
def test_most_recent(ids, count, expected):
    found = most_recent(tf.constant([ids], tf.int64), count)
    assert found.numpy()[0].tolist() == expected
    wider = tf.constant([[*ids, 0, 0, 0]], tf.int64)
    assert most_recent(wider, count).numpy()[0].tolist() == expected


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_ids_outlive_how_a_table_is_stored(kind):
    rows = 5000
    ids = tf.range(rows, dtype=tf.int64)
    vectors = np.random.default_rng(1).normal(size=(rows, 6)).astype(np.float32)
    vectors *= 10.0 ** np.random.default_rng(2).integers(-1, 3, (rows, 1))
    vectors[:2] = 0.0
    digits = digits_of(ids, rows, tf.constant(vectors))
    assert digits.shape == (rows, 13)
    assert not digits[0].numpy().any()
    table = ItemVectors([np.concatenate([vectors, digits], axis=1)], rows, kind, "items")
    looked_up = table.lookup(ids)
    np.testing.assert_array_equal(ids_of(looked_up[:, 6:]), ids)
    # Digits cost the other numbers nothing.
    without = ItemVectors([vectors], rows, kind, "without").lookup(ids)
    np.testing.assert_allclose(looked_up[2:, :6], without[2:], rtol=1e-6)
