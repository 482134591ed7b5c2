"""One sequence encoder for both domains, in both stages (its hand-over: test_sitn_options.py)."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import data, schema
from sitn_tf.layers import dropout, randomness
from sitn_tf.models.registry import PRETRAINERS, make_pretrainer, make_scorer
from sitn_tf.training import stage2
from tests.sitn_tf.models.made import made

SHARED = "encoder.shared=true"


def _make(make, small, *changes):
    return made(make, small, SHARED, *changes)


def _encoders(model):
    return [v for v in model.trainable_variables if "_encoder/" in v.name]


@pytest.mark.parametrize("name", PRETRAINERS)
def test_the_encoders_weights_are_there_once(small, name):
    changes = (f"model.name={name}", "encoder.layer_norm=true", "encoder.blocks=2")
    for make in (make_pretrainer, make_scorer):
        model = _make(make, small, *changes)
        assert len(_encoders(model)) == 1 + 2 * (4 + 2)  # positions; projections and norm a block
        assert all("/shared_encoder/" in v.name for v in _encoders(model))
        source, target = model.sequences.values()
        sequence, mask = tf.random.normal([3, 5, 8]), tf.sequence_mask([5, 2, 0], 5)
        np.testing.assert_array_equal(source(sequence, mask), target(sequence, mask))
        numbers = {id(v) for v in source.trainable_variables}
        assert numbers == {id(v) for v in target.trainable_variables}
    handed = model.variables_of(["sequences"])
    assert len(handed) == len({id(v) for v in handed}) == len(_encoders(model))
    control = _make(make_scorer, small, *changes, "model.use_source=false")
    assert len(_encoders(control)) == len(_encoders(model))


def test_what_is_dropped_tells_the_domains_apart(small):
    model = _make(make_pretrainer, small, "model.dropout=0.5")
    dropout.number_layers(model)
    sequence, mask = tf.random.normal([3, 5, 8]), tf.ones([3, 5], tf.bool)
    with randomness.at_step(1, tf.constant(4)):
        source, target = (
            encoder(sequence, mask, training=True).numpy() for encoder in model.sequences.values()
        )
    assert 0.2 < ((source == 0) != (target == 0)).mean() < 0.8


def test_both_domains_train_it(small):
    scorer = _make(make_scorer, small)
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 12)))
    without = [
        batch | {history.name: tf.zeros_like(batch[history.name])}
        for history in schema.HISTORY_OF_DOMAIN.values()
    ]
    losses = [lambda part=part: stage2.scorer_losses(scorer, part)["loss"] for part in without]
    scorer.contrast_weight = 1.0
    for loss in (*losses, lambda: stage2.scorer_losses(scorer, batch)["i2i"]):
        with tf.GradientTape() as tape:
            value = loss()
        for gradient in tape.gradient(value, _encoders(scorer)):
            assert np.abs(tf.convert_to_tensor(gradient)).max() > 0
