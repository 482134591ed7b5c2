import numpy as np
import tensorflow as tf

from sitn_tf.layers import click_ages
from sitn_tf.layers.encoder import SequenceEncoder
from sitn_tf.sections import EncoderConfig
from tests.sitn_tf import reference

HOUR = click_ages.HOUR_SECONDS
AGES = [0, 60, HOUR, 3 * HOUR, 5 * HOUR, 90 * 24 * HOUR, 2**62]


def _times(*rows):
    return tf.constant(rows, tf.int64)


def test_ages_are_seconds_before_the_request():
    times = _times([100, 190, 200], [0, -5, 299], [7, 7, 0])
    ages = click_ages.before(times, _times(200, 200, 0))
    # not known: a time that is not positive, one after the request, all without a request's time
    np.testing.assert_array_equal(ages, [[100, 10, 0], [-1, -1, -1], [-1, -1, -1]])


def test_without_a_request_ages_are_before_the_newest_click():
    times = _times([100, 190, 999], [5, 0, 0], [9, 9, 9])
    mask = tf.constant([[True, True, False], [True, True, False], [False] * 3])
    ages = click_ages.before_newest(times, mask)
    np.testing.assert_array_equal(ages, [[90, 0, -1], [0, -1, -1], [-1, -1, -1]])
    assert click_ages.before_newest(times[:, :0], mask[:, :0]).shape == (3, 0)


def test_shares_are_of_the_two_points_beside_an_age():
    shares = click_ages.shares(_times([*AGES, -1])).numpy()[0]
    # log2(1 + 0 h) = 0, log2(1 + 1 h) = 1, log2(1 + 3 h) = 2, and 2^2.585 = 6 = 1 + 5 h
    points = {0: {0: 1.0}, 2: {1: 1.0}, 3: {2: 1.0}, 4: {2: 0.415, 3: 0.585}, 6: {20: 1.0}}
    for row, expected in points.items():
        dense = [expected.get(point, 0.0) for point in range(click_ages.POINTS)]
        np.testing.assert_allclose(shares[row], dense, atol=1e-3)
    np.testing.assert_allclose(shares.sum(axis=1), [1.0] * len(AGES) + [0.0], atol=1e-5)
    assert not shares[-1].any()


def test_what_is_read_is_the_straight_line_between_the_points():
    rng = np.random.default_rng(0)
    curve = rng.normal(size=(click_ages.POINTS, 3))
    ages = [*AGES, *rng.integers(0, 10**9, 50).tolist()]
    read = click_ages.shares(_times(ages)).numpy()[0] @ curve
    for row, seconds in zip(read, ages, strict=True):
        np.testing.assert_allclose(row, reference.age_vector(seconds, curve), rtol=1e-3, atol=1e-4)


def test_an_encoder_adds_them_as_it_adds_positions():
    settings = {"heads": 2, "residual": True, "positions": False}
    aged = SequenceEncoder(EncoderConfig(ages=True, **settings), 4, max_history=6)
    plain = SequenceEncoder(EncoderConfig(**settings), 4, max_history=6)
    sequence, mask = tf.random.normal([2, 3, 4]), tf.sequence_mask([3, 2], 3)
    ages = _times([2 * HOUR, 60, 0], [5 * HOUR, HOUR, -1])
    aged(sequence, mask, ages)
    plain(sequence, mask)
    plain.attentions[0].set_weights(aged.attentions[0].get_weights())
    # the curve starts at zero: an encoder with ages starts as one without
    np.testing.assert_array_equal(aged(sequence, mask, ages), plain(sequence, mask))
    curve = np.random.default_rng(1).normal(size=aged.ages.shape).astype(np.float32)
    aged.ages.assign(curve)
    added = np.zeros((2, 3, 4), np.float32)
    for b in range(2):
        for t in range(3):
            if mask[b, t] and ages[b, t] >= 0:
                added[b, t] = reference.age_vector(int(ages[b, t]), curve)
    given, expected = aged(sequence, mask, ages), plain(sequence + added, mask)
    np.testing.assert_allclose(given[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_encoders_that_share_their_weights_share_the_curve():
    config = EncoderConfig(heads=2, ages=True, shared=True)
    first = SequenceEncoder(config, 4, max_history=6)
    sequence, mask, ages = tf.zeros([1, 2, 4]), tf.ones([1, 2], tf.bool), _times([1, 2])
    first(sequence, mask, ages)
    second = SequenceEncoder(config, 4, max_history=6, like=first)
    second(sequence, mask, ages)
    assert second.ages is first.ages
    assert len(second.trainable_variables) == len(first.trainable_variables)
