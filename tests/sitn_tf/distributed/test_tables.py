"""Tables are marked where they are made, and their slots follow the mark."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.distribute.sharded_variable import ShardedVariable

from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.layers.embedding import add_table
from sitn_tf.layers.precision import layers_in
from sitn_tf.optimizers.row_sparse import RowWiseAdagrad


class Tags(tf_keras.layers.Layer):
    """A new layer with a table whose name says nothing, and with a kernel."""

    def build(self, input_shape):
        self.table = add_table(self, "weights", 50, 4, "ones")
        self.kernel = self.add_weight("kernel", shape=(4, 4), initializer="ones")
        self.built = True

    def call(self, ids):
        return tf.matmul(tf.cast(tables.rows_of(self.table, ids), self.compute_dtype), self.kernel)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_new_layers_table_has_slots_by_row(two_cpus, precision, replicas):
    strategy = cpu_strategy(two_cpus[:replicas])
    with strategy.scope(), layers_in(precision):
        layer = Tags()
        layer.build(None)
        optimizer = RowWiseAdagrad()
        optimizer.build(layer.trainable_variables)
    assert [tuple(a.shape) for a in optimizer._accumulators] == [(50,), (4, 4)]

    @tf.function
    def step():
        def on_replica():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(tf.constant([3, 7, 3])))
            gradients = tape.gradient(loss, layer.trainable_variables)
            assert isinstance(gradients[0], tf.IndexedSlices)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

        strategy.run(on_replica)

    if replicas == 1:
        step()
        moved = np.flatnonzero((tf.convert_to_tensor(layer.table) != 1.0).numpy().any(axis=1))
        assert moved.tolist() == [3, 7]


def test_shards_are_marked():
    shards = [tf.Variable(tf.zeros([2, 3])) for _ in range(2)]
    tables.mark(ShardedVariable(shards))
    assert [tables.slots_of(shard) for shard in shards] == ["by_row", "by_row"]


def test_a_table_that_nobody_marked_is_refused():
    forgotten = tf.Variable(tf.zeros([100, 3]), name="forgotten")
    optimizer = RowWiseAdagrad()
    optimizer.build([forgotten])
    gradient = tf.IndexedSlices(tf.ones([1, 3]), tf.constant([4]), tf.constant([100, 3]))
    with pytest.raises(ValueError, match="forgotten:0 is read by rows: make it with"):
        optimizer.apply_gradients([(gradient, forgotten)])
