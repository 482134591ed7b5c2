"""The cached-gradient scheme gives the loss and gradients of the large batch."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.layers import randomness
from sitn_tf.layers.dropout import Dropout
from sitn_tf.models.registry import make_pretrainer
from sitn_tf.training.gradient_cache import add, cached_gradients
from sitn_tf.training.stage1 import micro_batch_gradients


def _model(small, parts, contrast):
    settings = config.tiny()
    settings = dataclasses.replace(
        settings,
        contrast=dataclasses.replace(settings.contrast, granularities=(4,), **contrast),
        stage1=dataclasses.replace(settings.stage1, micro_batches=parts, train_ids=True),
    )
    manifest = schema.read_manifest(small)
    tf.keras.utils.set_random_seed(1)
    return make_pretrainer(
        settings, runs.read_tables(small, manifest, settings), manifest.max_history
    )


OTHER = {"view": "mlp", "negatives": "views"}


@pytest.mark.parametrize(
    ("rows", "parts", "contrast"), [(11, 1, {}), (11, 3, {}), (3, 4, {}), (11, 3, OTHER)]
)
def test_cached_gradients_equal_those_of_the_large_batch(small, rows, parts, contrast):
    batch = next(iter(data.read_split(small, schema.STAGE1, schema.TRAIN, rows)))
    model = _model(small, parts, contrast)
    step = tf.constant(5, tf.int64)
    variables = model.trained_variables()
    with tf.GradientTape() as tape:
        expected = model.loss(batch, step)
    plain = tape.gradient(expected["loss"], variables)
    losses, cached = tf.function(lambda: micro_batch_gradients(model, batch, step, variables))()
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-6)
    for one, other in zip(plain, cached, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            one, other = (tf.convert_to_tensor(g).numpy() for g in (one, other))
            scale = max(np.abs(one).max(), 1e-6)
            assert np.abs(one - other).max() / scale < 1e-5


def test_no_two_parts_have_one_mask_of_dropout():
    layer, seen = Dropout(0.5), []

    def encode(rows):
        seen.append(layer(rows["x"], training=True))
        return seen[-1:]

    rows = {"x": tf.ones([4, 64])}
    with randomness.at_step(0, tf.constant(3)):
        cached_gradients(encode, lambda e: {"loss": tf.reduce_sum(e[0])}, rows, 2, [])
    first, second, *again = (part.numpy() for part in seen)
    assert (first != second).any()
    np.testing.assert_array_equal(again, [first, second])


def test_adding_gradients():
    sparse = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([2]), tf.constant([3, 1]))
    both = add(sparse, sparse)
    assert isinstance(both, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(both), [[0.0], [0.0], [2.0]])
    np.testing.assert_array_equal(add(sparse, tf.ones([3, 1])), [[1.0], [1.0], [2.0]])
    assert add(None, sparse) is sparse
    assert add(sparse, None) is sparse
