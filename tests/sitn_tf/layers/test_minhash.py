import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from sitn_tf.layers.contrast import Instances
from sitn_tf.layers.minhash import HASHES, likeness, minhash


def _histories(source, target):
    return {
        "source_history": tf.constant(source, tf.int64),
        "target_history": tf.constant(target, tf.int64),
    }


@given(st.integers(0, 30), st.integers(0, 10**6))
def test_likeness_estimates_the_jaccard_index(shared, seed):
    rng = np.random.default_rng(seed)
    ids = 2 + rng.permutation(10_000)[: 30 + 30 - shared]
    a, b = ids[:30], ids[30 - shared : 60 - shared]
    rows = np.stack([a, rng.permutation(b)])
    found = likeness(*2 * [minhash(_histories(rows[:, :15], rows[:, 15:]))]).numpy()
    # The same id in another domain is another item: compare pairs of (domain, id).
    sets = [{(j < 15, int(item)) for j, item in enumerate(row)} for row in rows]
    jaccard = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert found[0, 0] == found[1, 1] == 1.0
    # Five standard errors of HASHES draws.
    assert abs(found[0, 1] - jaccard) < 5 * 0.5 / HASHES**0.5


def test_order_and_padding_play_no_part():
    one = minhash(_histories([[5, 6, 0, 0]], [[7, 0]]))
    other = minhash(_histories([[6, 5]], [[0, 7]]))
    np.testing.assert_array_equal(one, other)
    swapped = minhash(_histories([[7]], [[5, 6]]))
    assert float(likeness(one, swapped)[0, 0]) < 0.2


def test_alike_users_are_no_negatives():
    signature = minhash(_histories([[2, 3, 4, 5]] * 2 + [[6, 7, 8, 9]], [[2]] * 3))
    zeros = tf.zeros([3, 2])
    instances = Instances(zeros, zeros, tf.range(3), tf.ones([3], tf.bool), tf.range(3), signature)
    np.testing.assert_array_equal(instances.other_users(0.9), [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    np.testing.assert_array_equal(instances.other_users(1.0), ~np.eye(3, dtype=bool))
