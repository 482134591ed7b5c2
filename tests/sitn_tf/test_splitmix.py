"""NumPy's and TensorFlow's SplitMix64 are one."""

import numpy as np
import tensorflow as tf

from pipelines.records import column_hashes
from sitn_tf import splitmix
from sitn_tf.layers import tensor_hashes


def test_numpy_and_tensorflow_give_the_same_finish():
    values = np.array([0, 1, 2, 1 << 62, -5, -(1 << 63)], np.int64)
    of_numpy = column_hashes.mix(values.view(np.uint64))
    assert tensor_hashes.scramble(tf.constant(values)).numpy().tolist() == of_numpy.tolist()
    assert of_numpy[0] == 0xE220A8397B1DCDAF  # the first output of the reference for seed 0


def test_integers_of_python_do_too():
    def finish(value):
        below = (1 << 64) - 1
        return splitmix.finish(value, lambda a, b: (a & below) >> b, int) & below

    values = np.array([7, 1 << 63], np.uint64)
    expected = splitmix.finish(values, np.right_shift, np.uint64).tolist()
    assert [finish(value) for value in values.tolist()] == expected
