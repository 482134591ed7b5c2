"""SEMI against a NumPy loop over its equations, and its stage 1 without interest spaces."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.training import stage1, stage2
from tests.sitn_tf import reference

pytestmark = pytest.mark.usefixtures("module_op_by_op")

SEMI = "model.name=semi"


def _made(make, small, *settings):
    manifest = schema.read_manifest(small)
    chosen = config.override(config.tiny(), [SEMI, *settings])
    tf.keras.utils.set_random_seed(4)
    return make(chosen, runs.read_tables(small, manifest, chosen), manifest.max_history)


def _projections(attention):
    names = ("query", "key", "value", "output_projection")
    return [getattr(attention, name).numpy() for name in names]


def test_a_logit_is_that_of_the_equations(small):
    plain = ("encoder.residual=false", "encoder.positions=false")
    scorer = _made(make_scorer, small, *plain)
    for weight in scorer.trainable_variables:
        weight.assign_add(tf.random.normal(weight.shape, stddev=0.3))
    heads = scorer.config.encoder.heads
    histories = {schema.SOURCE: [4, 9, 9, 3], schema.TARGET: [5, 2]}
    candidates = [3, 7, 2]
    batch = {f"{d}_history": tf.constant([[*h, 0, 0]], tf.int64) for d, h in histories.items()}
    logits = scorer(batch | {"candidates": tf.constant([candidates], tf.int64)}).numpy()[0]
    for candidate, logit in zip(candidates, logits, strict=True):
        v = scorer.items[schema.TARGET](tf.constant([candidate], tf.int64)).numpy()
        means, selected = [], []
        for domain, history in histories.items():
            x = scorer.items[domain](tf.constant(history, tf.int64)).numpy()
            encoder = _projections(scorer.sequences[domain].attentions[0])
            z = reference.multi_head_attention(x, x, *encoder, heads=heads)
            means.append(sum(z) / len(z))
            attention = _projections(scorer.attentions[domain])
            selected.append(reference.multi_head_attention(v, z, *attention, heads=heads)[0])
        users = [*means, *selected]
        joined = np.concatenate([*users, v[0], *(user * v[0] for user in users)])
        layers = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in scorer.mlp.layers]
        expected = reference.mlp(joined[None], layers)[0, 0]
        np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-5)


def test_sitn_with_the_means_scores_as_semi(small):
    request = {f"{domain}_history": tf.constant([[4, 9, 3]], tf.int64) for domain in schema.DOMAINS}
    request["candidates"] = tf.constant([[3, 7, 2]], tf.int64)
    semi, with_means, without = (
        _made(make_scorer, small, *changes)
        for changes in (
            (),
            ("model.name=sitn", "sitn.sequence_means=true"),
            ("model.name=sitn", "sitn.sequence_means=false"),
        )
    )
    expected = semi(request)
    with_means(request)
    with_means.set_weights(semi.get_weights())
    np.testing.assert_allclose(with_means(request), expected, rtol=1e-6, atol=1e-6)
    without(request)
    # Two means of 8 numbers, and each times the candidate.
    widths = [scorer.mlp.layers[0].kernel.shape[0] for scorer in (with_means, without)]
    assert widths == [9 * 8, 5 * 8]
    assert not config.paper().sitn.sequence_means


def test_stage_1_is_the_contrast_of_instances_alone(small, tmp_path, two_cpus):
    model = _made(make_pretrainer, small)
    batch = next(iter(data.read_split(small, schema.STAGE1, schema.TRAIN, 12)))
    losses = model.loss(batch, tf.constant(0, tf.int64), training=False)
    assert not model.i2c
    np.testing.assert_allclose(losses["loss"], losses["i2i"])
    encoders = [v for domain in model.sequences.values() for v in domain.trainable_variables]
    assert {id(v) for v in encoders} <= {id(v) for v in model.trained_variables()}

    strategy = cpu_strategy(two_cpus[:1])
    chosen = config.override(config.tiny(), [SEMI, "stage1.epochs=1", "stage2.epochs=1"])
    stage1.run_stage1(chosen, small, tmp_path / "stage1", strategy)
    init = str(tmp_path / "stage1")
    assert len(stage2.restore_encoders(_made(make_scorer, small), init).learned) > len(encoders)
    stage2.run_stage2(chosen, small, tmp_path / "stage2", strategy, init)
    assert runs.read_json(tmp_path / "stage2" / runs.METRICS_FILE, {})["validation"]["auc"] > 0


def test_interest_spaces_are_refused():
    assert config.override(config.default(), [SEMI]).contrast.i2c_weight == 0
    with pytest.raises(InputError, match=r"i2c_weight=0.5: model\.name=semi has no interest sp"):
        config.override(config.default(), [SEMI, "contrast.i2c_weight=0.5"])
    with pytest.raises(InputError, match=r"contrast\.i2i_weight and contrast\.i2c_weight are"):
        config.override(config.default(), [SEMI, "contrast.i2i_weight=0"])
