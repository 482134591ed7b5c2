"""FTRL-Proximal against its pseudocode, and beside another optimiser in stage 2."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import config, schema
from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import cpu_strategy, separate_replicas, split_rows
from sitn_tf.optimizers.ftrl import Beside, RowSparseFtrl
from sitn_tf.optimizers.row_sparse import RowSparseAdam, rate_at
from sitn_tf.training import steps
from sitn_tf.training.stage import Stage

WIDE = ["model.name=wide_deep", "model.request_features=user", "model.user_buckets=20"]
FTRL = [*WIDE, "wide.optimizer=ftrl"]


def _ftrl_loop(w, gradients, rate, l1, l2):
    """Algorithm 1 of McMahan et al. (2013), a weight at a time, with beta 0."""
    z = n = 0.0
    for g in gradients:
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / rate
        z, n = z + g - sigma * w, n + g * g
        w = 0.0 if abs(z) <= l1 else -(z - np.sign(z) * l1) / (np.sqrt(n) / rate + l2)
    return w


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.3, 0.1), (50.0, 0.0)])
def test_weights_follow_the_algorithm_and_rows_without_a_gradient_stay(sparse, l1, l2):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 2)).astype(np.float32)
    table = tf.Variable(start)
    optimizer = RowSparseFtrl(0.2, l1, l2)
    optimizer.build([table])
    gradients = rng.normal(size=(5, 2, 2)).astype(np.float32)
    for g in gradients:
        # Each row named twice, as two clicks name it.
        twice = tf.IndexedSlices(np.concatenate([g, g]) / 2, tf.constant([4, 1, 4, 1]), (6, 2))
        gradient = twice if sparse else tf.convert_to_tensor(twice)
        optimizer.apply_gradients([(gradient, table)])
    expected = start.copy()
    if not sparse:
        # A dense gradient is of all: where it is 0 the weight is what L1 and L2 leave of it, 0.
        expected[:] = 0.0
    for place, row in enumerate([4, 1]):
        for column in range(2):
            each = gradients[:, place, column].astype(float)
            expected[row, column] = _ftrl_loop(float(start[row, column]), each, 0.2, l1, l2)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-6)
    if l1 == 50.0:
        assert not table.numpy()[[4, 1]].any()


def test_rows_are_those_of_tensorflows_own_operation():
    rng = np.random.default_rng(1)
    ours, theirs = (tf.Variable(tf.zeros([5, 3])) for _ in range(2))
    optimizer = RowSparseFtrl(0.2, l1=0.3, l2=0.1)
    optimizer.build([ours])
    # Its L2 counts twice.
    legacy = tf_keras.optimizers.legacy.Ftrl(
        0.2,
        initial_accumulator_value=0.0,
        l1_regularization_strength=0.3,
        l2_regularization_strength=0.05,
    )
    for _ in range(6):
        values = tf.constant(rng.normal(size=(2, 3)), tf.float32)
        gradient = tf.IndexedSlices(values, tf.constant([3, 0]), (5, 3))
        optimizer.apply_gradients([(gradient, ours)])
        legacy.apply_gradients([(gradient, theirs)])
    assert theirs.numpy()[[3, 0]].any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_wide_part_alone_has_ftrl(small):
    stage = Stage(schema.STAGE2, config.override(config.tiny(), FTRL), small)
    optimizer, variables = stage.optimizer, stage.model.trainable_variables
    assert isinstance(optimizer, Beside)
    optimizer.build(variables)
    wide = {variable.name for variable in stage.model.ftrl_variables}
    named = ("_weights/", "_crosses/")
    assert wide == {v.name for v in variables if any(part in v.name for part in named)}
    # Two slots a variable beside the number of steps.
    assert len(optimizer.own.variables) == 1 + 2 * len(wide)
    assert not any(part in v.name for part in named for v in optimizer.rest.variables)
    assert len(optimizer.variables) > len(optimizer.own.variables) + 2 * (
        len(variables) - len(wide)
    )
    assert rate_at(optimizer, 3) == pytest.approx(stage.settings.learning_rate)
    shared = Stage(schema.STAGE2, config.override(config.tiny(), WIDE), small)
    assert not isinstance(shared.optimizer, Beside)


def _trained(devices):
    """A table by FTRL and a kernel by Adam, after steps on 7 rows of two ids each."""
    strategy = cpu_strategy(devices)
    with strategy.scope():
        table = tables.mark(tf.Variable(tf.zeros([9, 1]), name="table"))
        kernel = tf.Variable(tf.ones([2, 1]), name="kernel")
        optimizer = Beside(RowSparseAdam(learning_rate=0.1), RowSparseFtrl(0.1, l1=0.05), [table])
        optimizer.build([table, kernel])
    separate_replicas([table, kernel, *optimizer.variables])

    def losses(batch, step):
        logits = tables.read_rows(table, batch["ids"])[:, :, 0] @ kernel
        return {"loss": tf.reduce_sum(tf.nn.softplus(-batch["sign"] * logits)) / 7}

    step = steps.traced_once(steps.make_step(strategy, [table, kernel], optimizer, losses))
    rng = np.random.default_rng(0)
    for _ in range(6):
        ids, sign = rng.integers(0, 8, (7, 2)), rng.choice([-1.0, 1.0], (7, 1))
        batch = {"ids": tf.constant(ids), "sign": tf.constant(sign, tf.float32)}
        batch[schema.USER_ID.name] = tf.constant(["u"] * 7)
        step(split_rows(strategy, batch))
    assert optimizer.iterations.numpy() == 6
    return [tf.convert_to_tensor(variable).numpy() for variable in (table, kernel)]


def test_two_replicas_are_one_and_l1_leaves_zeros(two_cpus):
    one, two = _trained(two_cpus[:1]), _trained(two_cpus)
    for weights, others in zip(one, two, strict=True):
        np.testing.assert_allclose(others, weights, rtol=1e-5, atol=1e-7)
    assert 0 < np.count_nonzero(one[0][:8]) < 8
    assert one[0][8] == 0


@pytest.mark.parametrize("setting", ["wide.ftrl_rate=0", "wide.ftrl_l1=-1", "wide.optimizer=adam"])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=setting.partition("=")[0].replace(".", r"\.")):
        config.override(config.tiny(), [*WIDE, setting])
