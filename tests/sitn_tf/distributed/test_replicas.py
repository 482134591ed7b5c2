"""Two and four replicas give the loss, the gradients and the weights of one."""

import contextlib
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, schema
from sitn_tf.distributed.replicas import (
    cpu_strategy,
    global_sum,
    split_rows,
    sum_gradients,
    sum_over_replicas,
)
from sitn_tf.models.registry import SCORERS
from sitn_tf.training import stage1
from tests.eagerly import op_by_op
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches, settings


@pytest.fixture(scope="module")
def four_cpus(two_cpus):
    return [device.name for device in tf.config.list_logical_devices("CPU")[:4]]


READINGS = [
    {},
    {"negatives": "views", "stop_cluster_gradient": True},
    {"assignment": "balanced"},
    {"view": "mlp", "similarity": "dot", "reduction": "sum", "cluster_norm": "none"},
]


@pytest.mark.parametrize("change", READINGS, ids=["default", "views", "balanced", "paper"])
def test_stage_1_loss_and_gradients(small, four_cpus, change):
    chosen, batch = settings(**change), read_batches(small, schema.STAGE1)[0]
    one = Trial(small, schema.STAGE1, cpu_strategy(four_cpus[:1]), chosen)
    two = Trial(small, schema.STAGE1, cpu_strategy(four_cpus[:2]), chosen)
    with op_by_op() if change else contextlib.nullcontext():
        expected = one.loss_and_gradients(batch, (ROWS,))
        for sizes in ((6, 5), (10, 1), (11, 0)):
            assert_same(two.loss_and_gradients(batch, sizes), expected)


@pytest.mark.slow
def test_stage_1_on_four_replicas(small, four_cpus):
    chosen, batch = settings(), read_batches(small, schema.STAGE1)[0]
    one = Trial(small, schema.STAGE1, cpu_strategy(four_cpus[:1]), chosen)
    expected = one.loss_and_gradients(batch, (ROWS,))
    four = Trial(small, schema.STAGE1, cpu_strategy(four_cpus), chosen)
    for sizes in ((3, 3, 3, 2), (0, 9, 1, 1)):
        assert_same(four.loss_and_gradients(batch, sizes), expected)


@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
@pytest.mark.parametrize("sizes", [(7, 4), pytest.param((5, 3, 2, 1), marks=pytest.mark.slow)])
def test_weights_after_ten_steps(small, four_cpus, stage, sizes):
    """An item that several replicas see is without its id on all of them, or on none."""
    chosen = config.override(settings(), ["items.id_dropout=0.5", "stage1.train_ids=true"])
    batches, strategy = read_batches(small, stage), cpu_strategy(four_cpus[: len(sizes)])
    one = Trial(small, stage, cpu_strategy(four_cpus[:1]), chosen).train(batches, (ROWS,))
    several = Trial(small, stage, strategy, chosen).train(batches, sizes)
    np.testing.assert_allclose(several[0], one[0], rtol=1e-5)
    assert_same(several[1], one[1])


LONG = ("clsr", "minet", "mv_dnn", "semi")
"""Models whose own tests take a step on two replicas; SEMI is SITN without interest spaces."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name in SCORERS
        if name != "sitn"
    ],
)
def test_every_other_model_after_ten_steps(small, four_cpus, name):
    chosen = config.override(settings(), [f"model.name={name}"])
    batches = read_batches(small, schema.STAGE2)
    if SCORERS[name].learns_source:
        asked = read_batches(small, schema.SOURCE_REQUESTS)
        batches = list(map(data.with_source_requests, batches, asked))
    one = Trial(small, schema.STAGE2, cpu_strategy(four_cpus[:1]), chosen).train(batches, (ROWS,))
    two = Trial(small, schema.STAGE2, cpu_strategy(four_cpus[:2]), chosen).train(batches, (7, 4))
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5)
    assert_same(two[1], one[1])


def test_request_features_after_ten_steps(small, four_cpus):
    """Rows of users and times that replicas share, and that only one of them has."""
    chosen = config.override(
        settings(),
        [
            "model.name=mean_pool",
            "model.request_features=hour,weekday,user,source_length,target_length,idle",
            "model.user_buckets=5",
        ],
    )
    batches = read_batches(small, schema.STAGE2)
    for step, batch in enumerate(batches):
        # A day and five hours apart, the first of them unknown.
        batch["request_time"] = (tf.range(ROWS, dtype=tf.int64) + step) * 29 * 3600
    one = Trial(small, schema.STAGE2, cpu_strategy(four_cpus[:1]), chosen).train(batches, (ROWS,))
    two = Trial(small, schema.STAGE2, cpu_strategy(four_cpus[:2]), chosen)
    trained = two.train(batches, (7, 4))
    np.testing.assert_allclose(trained[0], one[0], rtol=1e-5)
    assert_same(trained[1], one[1])
    for table in two.model.request_embedding.tables.values():
        assert np.abs(tf.convert_to_tensor(table)).max() > 0


def test_micro_batches_on_two_replicas_are_the_large_batch(small, four_cpus):
    batches = read_batches(small, schema.STAGE1)
    chosen = settings()
    parts = dataclasses.replace(chosen, stage1=dataclasses.replace(chosen.stage1, micro_batches=2))
    one = Trial(small, schema.STAGE1, cpu_strategy(four_cpus[:1]), chosen)
    two = Trial(small, schema.STAGE1, cpu_strategy(four_cpus[:2]), parts)
    assert two.gradients_of is not None
    expected = one.train(batches, (ROWS,))
    trained = two.train(batches, (7, 4))
    np.testing.assert_allclose(trained[0], expected[0], rtol=1e-5)
    assert_same(trained[1], expected[1])


@pytest.mark.slow
def test_fit_with_two_replicas_trains(small, two_cpus, tmp_path):
    best = stage1.run_stage1(settings(), small, tmp_path / "stage1", cpu_strategy(two_cpus))
    assert 0 <= best["recall"] <= 1


def test_rows_are_split_evenly_and_all_of_them(two_cpus):
    strategy = cpu_strategy(two_cpus)
    parts = split_rows(strategy, {"x": tf.range(5)})["x"].values
    assert [part.numpy().tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"sizes=\(1, 1\) do not sum to the batch's 5 rows"):
        split_rows(strategy, {"x": tf.range(5)}, (1, 1))


def test_gradients_are_summed_over_replicas_row_by_row(two_cpus):
    """By their values: Adam takes the same step on any multiple of its gradients."""
    strategy = cpu_strategy(two_cpus)

    def on_replica():
        count = tf.distribute.get_replica_context().replica_id_in_sync_group + 1  # 1, 2
        share = tf.cast(count, tf.float32)
        values = share * tf.ones([count, 2])
        rows = tf.IndexedSlices(values, tf.range(count) * 2, tf.constant([4, 2]))
        dense, sparse, none = sum_gradients([share * tf.constant([1.0, 10.0]), rows, None])
        assert isinstance(sparse, tf.IndexedSlices)
        assert none is None
        return dense, tf.convert_to_tensor(sparse)

    dense, sparse = tf.function(lambda: strategy.run(on_replica), autograph=False)()
    for of_replica in strategy.experimental_local_results(dense):
        np.testing.assert_array_equal(of_replica, [3.0, 30.0])
    for of_replica in strategy.experimental_local_results(sparse):
        np.testing.assert_array_equal(of_replica, [[3, 3], [0, 0], [2, 2], [0, 0]])


def test_a_global_sum_has_no_gradient_and_a_sum_over_replicas_has(two_cpus):
    strategy = cpu_strategy(two_cpus)

    def on_replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        x = tf.cast(number, tf.float32) + 1.0
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            counted, summed = global_sum(2.0 * x), sum_over_replicas(2.0 * x)
        assert tape.gradient(counted, x) is None
        return counted, summed, tape.gradient(summed, x)

    results = tf.function(lambda: strategy.run(on_replica), autograph=False)()
    for result, expected in zip(results, (6.0, 6.0, 4.0), strict=True):  # 2 from each replica
        for of_replica in strategy.experimental_local_results(result):
            assert float(of_replica) == expected
