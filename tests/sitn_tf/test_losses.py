import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sitn_tf import losses
from tests.sitn_tf import reference


def _rows(rng, n, d=4):
    return rng.normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_info_nce_golden():
    # anchors a1 = (1, 0), a2 = (0, 1); keys k1 = (1, 0), k2 = (1, 1); tau = 1.
    # a1 . k = (1, 1): loss = log(e + e) - 1 = log 2.
    # a2 . k = (0, 1): loss = log(1 + e) - 1.
    loss = losses.info_nce(
        tf.constant([[1.0, 0.0], [0.0, 1.0]]),
        tf.constant([[1.0, 0.0], [1.0, 1.0]]),
        tf.constant([0, 1]),
        temperature=1.0,
    )
    np.testing.assert_allclose(loss, [math.log(2), math.log(1 + math.e) - 1], rtol=1e-6)


def test_info_nce_is_equation_3(rng):
    p_s, p_t = _rows(rng, 6), _rows(rng, 6)
    loss = losses.info_nce(p_s, p_t, tf.range(6), temperature=0.5)
    np.testing.assert_allclose(loss, reference.i2i(p_s, p_t, 0.5), rtol=1e-5)


def test_info_nce_of_one_row_is_zero(rng):
    np.testing.assert_allclose(
        losses.info_nce(_rows(rng, 1), _rows(rng, 1), tf.constant([0]), 0.1), [0.0], atol=1e-6
    )


def test_info_nce_ignores_keys_that_are_not_allowed(rng):
    anchors, keys = _rows(rng, 3), _rows(rng, 5)
    allowed = np.zeros((3, 5), bool)
    allowed[:, :3] = True
    masked = losses.info_nce(anchors, keys, tf.range(3), 0.3, tf.constant(allowed))
    without = losses.info_nce(anchors, keys[:3], tf.range(3), 0.3)
    np.testing.assert_allclose(masked, without, rtol=1e-5)


def test_info_nce_counts_the_positive_even_where_its_key_is_not_allowed(rng):
    anchors, keys, nothing = _rows(rng, 3), _rows(rng, 3), np.zeros((3, 3), bool)
    alone = losses.info_nce(anchors, keys, tf.range(3), 0.3, tf.constant(nothing))
    np.testing.assert_allclose(alone, np.zeros(3), atol=1e-6)
    others = losses.info_nce(anchors, keys, tf.range(3), 0.3, tf.constant(~np.eye(3, dtype=bool)))
    np.testing.assert_allclose(others, reference.i2i(anchors, keys, 0.3), rtol=1e-5)


def test_assignment_golden():
    # c . p = (log 3, 0): softmax = (3/4, 1/4).
    pi = losses.cluster_assignment(
        tf.constant([[1.0, 0.0]]), tf.constant([[math.log(3.0), 0.0], [0.0, 5.0]])
    )
    np.testing.assert_allclose(pi, [[0.75, 0.25]], rtol=1e-6)


def test_balanced_assignment_is_sinkhorns(rng):
    c = _rows(rng, 3)
    p = 0.5 * _rows(rng, 9) + c[0]
    valid = np.arange(9) % 4 > 0
    pi = losses.balanced_assignment(p, c, tf.constant(valid), 0.5).numpy()
    expected = reference.balanced_assignment(p, c, valid, 0.5, losses.SINKHORN_ITERATIONS)
    np.testing.assert_allclose(pi[valid], expected[valid], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(pi.sum(axis=1), 1.0, rtol=1e-5)
    # The softmax gives most of the batch to one cluster.
    share = pi[valid].mean(axis=0)
    uneven = losses.cluster_assignment(p, c, 0.5).numpy()[valid].mean(axis=0)
    assert np.ptp(share) < 0.2 * np.ptp(uneven)


def test_balanced_assignment_without_a_valid_row_is_finite(rng):
    p, c = tf.constant(_rows(rng, 4)), tf.constant(_rows(rng, 3))
    with tf.GradientTape() as tape:
        tape.watch([p, c])
        pi = losses.balanced_assignment(p, c, tf.zeros([4], tf.bool), 0.1)
    for value in (pi, *tape.gradient(pi, [p, c])):
        assert np.isfinite(value).all()


def test_new_clusters_golden():
    # u_1 = 0.75 (1, 0) + 0.5 (0, 2) = (0.75, 1); u_2 = 0.25 (1, 0) + 0.5 (0, 2) = (0.25, 1).
    pi = tf.constant([[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]])
    p = tf.constant([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    valid = tf.constant([True, True, False])
    u = losses.new_clusters(pi, p, valid)
    np.testing.assert_allclose(u, [[0.75, 1.0], [0.25, 1.0]], rtol=1e-6)
    mean = losses.new_clusters(pi, p, valid, norm="mean")
    np.testing.assert_allclose(mean, [[0.75 / 1.25, 1 / 1.25], [0.25 / 0.75, 1 / 0.75]], rtol=1e-6)
    length = math.sqrt(0.75**2 + 1)
    unit = losses.new_clusters(pi, p, valid, norm="l2")
    np.testing.assert_allclose(unit[0], [0.75 / length, 1 / length], rtol=1e-6)


def test_clusters_are_equation_5(rng):
    p, c = _rows(rng, 7), _rows(rng, 3)
    pi = losses.cluster_assignment(p, c)
    np.testing.assert_allclose(pi, reference.assignment(p, c), rtol=1e-5)
    u = losses.new_clusters(pi, p, tf.ones([7], tf.bool))
    np.testing.assert_allclose(u, reference.new_clusters(np.asarray(pi), p), rtol=1e-5)


def test_top_clusters_are_those_of_equation_6(rng):
    p, u = _rows(rng, 5), _rows(rng, 6)
    chosen = tf.reshape(tf.gather(u, losses.top_clusters(p, u, 2)), [5, -1])
    np.testing.assert_allclose(chosen, reference.top_k_concatenated(p, u, 2), rtol=1e-6)


def test_instance_to_cluster_golden():
    # a . q = 1, a . u = (0, 1), tau = 1: loss = log(e + 1 + e) - 1 = log(2 + 1/e).
    loss = losses.instance_to_cluster(
        tf.constant([[1.0, 0.0]]),
        tf.constant([[1.0, 3.0]]),
        tf.constant([[0.0, 1.0], [1.0, 0.0]]),
        temperature=1.0,
    )
    np.testing.assert_allclose(loss, [math.log(2 + 1 / math.e)], rtol=1e-6)


def test_instance_to_cluster_is_equation_7(rng):
    p, q, u = _rows(rng, 6), _rows(rng, 6), _rows(rng, 4)
    loss = losses.instance_to_cluster(p, q, u, 0.7)
    np.testing.assert_allclose(loss, reference.i2c(p, q, u, 0.7), rtol=1e-5)


def test_instance_to_cluster_without_negatives_is_zero(rng):
    p, q, u = _rows(rng, 2), _rows(rng, 2), _rows(rng, 4)
    loss = losses.instance_to_cluster(p, q, u, 0.7, tf.zeros([2, 4], tf.bool))
    np.testing.assert_allclose(loss, [0.0, 0.0], atol=1e-6)


def test_click_loss_golden_and_equation_9():
    # logit 0 is p = 0.5: loss log 2 either way. logit log 3 is p = 0.75.
    logits = tf.constant([[0.0, 0.0, math.log(3.0), 5.0]])
    labels = tf.constant([[1.0, 0.0, 0.0, 1.0]])
    loss = losses.click_loss(labels, logits, tf.constant([[True, True, True, False]]))
    np.testing.assert_allclose(
        loss, [[math.log(2), math.log(2), reference.cross_entropy(0, 0.75), 0.0]], rtol=1e-6
    )


def test_softmax_loss_golden_and_by_a_loop(rng):
    # Odds of 3 : 1 : 1 : 1; the one that is masked would have most.
    logits = tf.constant([[math.log(3.0), 0.0, 0.0, 0.0, 9.0]] * 4)
    labels = tf.constant([[1, 0, 0, 0, 0], [1, 1, 0, 0, 1], [0] * 5, [0, 0, 0, 0, 1]])
    mask = tf.constant([[True] * 4 + [False]] * 4)
    loss = losses.softmax_loss(labels, logits, mask)
    np.testing.assert_allclose(loss, [math.log(2), math.log(12) / 2, 0.0, 0.0], rtol=1e-6)
    logits, labels = tf.Variable(rng.normal(size=(7, 5))), (rng.random((7, 5)) < 0.4).astype(int)
    lengths = [0, 1, 2, 3, 4, 5, 5]
    mask = tf.sequence_mask(lengths, 5)
    with tf.GradientTape() as tape:
        loss = losses.softmax_loss(tf.constant(labels), logits, mask)
    expected = [
        reference.softmax_cross_entropy(labels[i, :n], logits.numpy()[i, :n])
        for i, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(loss, logits).numpy()
    np.testing.assert_allclose(gradient.sum(axis=1), np.zeros(7), atol=1e-6)
    assert not gradient[~mask.numpy()].any()


def test_unit_of_zero_is_zero_with_a_finite_gradient():
    x = tf.Variable([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        y = losses.unit(x)
    np.testing.assert_allclose(y, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)
    assert np.isfinite(tape.gradient(y, x)).all()


@settings(max_examples=60)
@given(
    n=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
    tau=st.sampled_from([0.05, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_losses_and_gradients_are_finite_and_not_negative(n, scale, tau, seed):
    rng = np.random.default_rng(seed)
    p = tf.Variable(_rows(rng, n) * scale)
    keys = tf.Variable(_rows(rng, n) * scale)
    c = tf.Variable(_rows(rng, 3) * scale)
    with tf.GradientTape() as tape:
        u = losses.new_clusters(losses.cluster_assignment(keys, c), keys, tf.ones([n], tf.bool))
        q = tf.reduce_mean(tf.gather(u, losses.top_clusters(keys, u, 2)), axis=1)
        rows = losses.info_nce(p, keys, tf.range(n), tau) + losses.instance_to_cluster(p, q, u, tau)
    assert np.isfinite(rows).all()
    assert (rows.numpy() >= -1e-3).all()
    for gradient in tape.gradient(rows, [p, keys, c]):
        assert np.isfinite(gradient).all()


@settings(max_examples=30)
@given(n=st.integers(2, 8), seed=st.integers(0, 1000))
def test_permuting_users_permutes_the_losses(n, seed):
    rng = np.random.default_rng(seed)
    p_s, p_t = _rows(rng, n), _rows(rng, n)
    order = rng.permutation(n)
    plain = losses.info_nce(p_s, p_t, tf.range(n), 0.2).numpy()
    permuted = losses.info_nce(p_s[order], p_t[order], tf.range(n), 0.2).numpy()
    np.testing.assert_allclose(permuted, plain[order], rtol=1e-4, atol=1e-5)
