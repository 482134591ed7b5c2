import math

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config
from sitn_tf.errors import InputError
from sitn_tf.optimizers.row_sparse import make_optimizer, make_rate, rate_at
from sitn_tf.optimizers.schedules import WarmUpThenDecay


def _rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_warm_up_then_constant():
    # peak 4, w = 3: 4 * 1/4, 4 * 2/4, 4 * 3/4, then 4.
    schedule = WarmUpThenDecay(4.0, "constant", warmup_steps=3)
    np.testing.assert_allclose(_rates(schedule, [0, 1, 2, 3, 1000]), [1, 2, 3, 4, 4], rtol=1e-6)


def test_linear_decay_to_a_share():
    # peak 2, w = 2, d = 6, f = 0.25: x = (t - 2) / 4, 2 * (0.25 + 0.75 * (1 - x)).
    schedule = WarmUpThenDecay(2.0, "linear", 2, 6, 0.25)
    expected = [2.0, 2 * (0.25 + 0.75 * 0.5), 0.5, 0.5]
    np.testing.assert_allclose(_rates(schedule, [2, 4, 6, 99]), expected, rtol=1e-6)


def test_cosine_decay():
    schedule = WarmUpThenDecay(2.0, "cosine", 0, 8)
    expected = [1 + math.cos(math.pi * x) for x in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(_rates(schedule, [0, 2, 4, 8]), expected, rtol=1e-6, atol=1e-6)


def test_the_configuration_decides():
    constant = config.override(config.tiny(), ["stage2.learning_rate=0.5"]).stage2
    assert make_rate(constant, None) == 0.5
    decaying = config.override(config.tiny(), ["stage2.schedule=linear"]).stage2
    # tiny trains 2 epochs; of 5 steps each, the rate is halved after 5.
    optimizer = make_optimizer(decaying, steps=5)
    assert rate_at(optimizer, 5) == pytest.approx(decaying.learning_rate / 2)
    explicit = config.override(config.tiny(), ["stage2.schedule=linear", "stage2.decay_steps=4"])
    assert rate_at(make_optimizer(explicit.stage2, None), 2) == pytest.approx(0.5e-3)


def test_a_decay_without_an_end_is_refused():
    unknown = config.override(config.tiny(), ["stage2.schedule=cosine"]).stage2
    with pytest.raises(InputError, match=r"schedule=cosine has 0 steps .*stage2.decay_steps=10000"):
        make_optimizer(unknown, None)
    within = config.override(
        config.tiny(), ["stage2.schedule=cosine", "stage2.warmup_steps=10"]
    ).stage2
    with pytest.raises(InputError, match=r"has 10 steps in all .* warmup_steps=10"):
        make_optimizer(within, 5)
    with pytest.raises(ValueError, match=r"decay_steps=3 is not above warmup_steps=3"):
        WarmUpThenDecay(1.0, "linear", 3, 3)


def test_the_step_uses_the_rate_of_its_number():
    weight = tf.Variable([0.0])
    settings = config.override(
        config.tiny(), ["stage2.optimizer=adagrad", "stage2.warmup_steps=1"]
    ).stage2
    optimizer = make_optimizer(settings, None)
    optimizer.build([weight])
    moves = []
    for _ in range(2):
        before = float(weight[0])
        optimizer.apply_gradients([(tf.constant([1e6]), weight)])
        moves.append(before - float(weight[0]))
    # g / sqrt(sum of g²): 1, then 1 / sqrt(2); rates 1e-3 / 2, then 1e-3.
    np.testing.assert_allclose(moves, [0.5e-3, 1e-3 / math.sqrt(2)], rtol=1e-5)
