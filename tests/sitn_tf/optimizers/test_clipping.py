import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.optimizers import clipping
from sitn_tf.optimizers.row_sparse import RowSparseAdam
from sitn_tf.training import steps


def test_equal_rows_are_summed():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([3, 1, 3]), (5, 1))
    combined = clipping.combine_rows(slices)
    assert combined.indices.numpy().tolist() == [3, 1]
    assert combined.values.numpy().tolist() == [[5.0], [2.0]]


def test_the_norm_is_that_of_the_dense_gradients():
    # Rows 3 and 3 are one row of 3 + 4 = 7: sqrt(7² + 24²) = 25, not sqrt(3² + 4² + 24²).
    slices = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([3, 3]), (5, 1))
    distinct = clipping.with_distinct_rows([slices, None, tf.constant([24.0])])
    norm = clipping.global_norm(distinct)
    assert float(norm) == 25.0
    clipped = clipping.clip(distinct, norm, 5.0)
    np.testing.assert_allclose(clipped[0].values, [[7 / 5]], rtol=1e-6)
    assert clipped[1] is None
    np.testing.assert_allclose(clipped[2], [24 / 5], rtol=1e-6)
    for bound in (0.0, 30.0):
        np.testing.assert_array_equal(clipping.clip(distinct, norm, bound)[2], [24.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_norm_shows_what_is_not_finite(bad):
    slices = tf.IndexedSlices(tf.constant([[bad]]), tf.constant([3]), (5, 1))
    assert not np.isfinite(clipping.global_norm([slices, tf.constant(1.0)]))


def _trained(devices, sizes):
    """Weights after clipped steps on rows that recur within and across the replicas' parts."""
    strategy = cpu_strategy(devices)
    with strategy.scope():
        table = tf.Variable(tf.reshape(tf.range(12.0), [6, 2]) / 10, name="x_items/ids")
        kernel = tf.Variable([[1.0], [-1.0]])
        optimizer = RowSparseAdam(learning_rate=0.1)
        optimizer.build([table, kernel])

    def losses(batch, step):
        vectors = tf.gather(table, batch["ids"])
        return {"loss": tf.reduce_sum(tf.square(vectors @ kernel - batch["y"]))}

    step = steps.traced_once(
        steps.make_step(strategy, [table, kernel], optimizer, losses, clip_norm=0.5)
    )
    norms = []
    for ids in ([1, 1, 2, 1, 2], [5, 0, 0, 5, 5]):
        batch = {"ids": tf.constant(ids), "y": tf.reshape(tf.range(5.0), [5, 1])}
        norms.append(float(step(split_rows(strategy, batch, sizes))[steps.GRADIENT_NORM]))
    return norms, table.numpy(), kernel.numpy()


def test_two_replicas_clip_as_one(two_cpus):
    one = _trained(two_cpus[:1], [5])
    assert all(norm > 0.5 for norm in one[0])
    for sizes in ([3, 2], [5, 0]):
        for ours, theirs in zip(_trained(two_cpus, sizes), one, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
