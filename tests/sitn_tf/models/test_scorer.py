"""The scorer against a NumPy loop of Eq. 8, one candidate at a time."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, runs, schema
from sitn_tf.models.registry import SCORERS, make_scorer
from tests.sitn_tf import reference
from tests.sitn_tf.models.apart import encode_and_score


def _attention_weights(attention):
    names = ("query", "key", "value", "output_projection")
    return [getattr(attention, name).numpy() for name in names]


def _dense(mlp):
    layers = [layer for layer in mlp.layers if layer.weights]
    return [(layer.kernel.numpy(), layer.bias.numpy()) for layer in layers]


def _reference_logit(scorer, histories, candidate):
    """Eq. 8 for one candidate, from the paper: attention, attention by the candidate, MLP."""
    heads = scorer.config.encoder.heads
    v = scorer.items[schema.TARGET](tf.constant([candidate], tf.int64)).numpy()
    users = []
    for domain, history in histories.items():
        x = scorer.items[domain](tf.constant(history, tf.int64)).numpy()
        encoder = _attention_weights(scorer.sequences[domain].attentions[0])
        z = reference.multi_head_attention(x, x, *encoder, heads=heads)
        block = _attention_weights(scorer.attentions[domain])
        users.append(reference.multi_head_attention(v, z, *block, heads=heads))
    joined = np.concatenate([*users, v], axis=1)
    return reference.mlp(joined, _dense(scorer.mlp))[0, 0]


def test_scorer_is_equation_8(small):
    manifest = schema.read_manifest(small)
    settings = config.override(
        config.paper(),
        ["model.embedding_dim=8", "encoder.heads=2", "mlp.widths=16", "items.title_words=3"],
    )
    tables = runs.read_tables(small, manifest, settings)
    tf.keras.utils.set_random_seed(4)
    scorer = make_scorer(settings, tables, manifest.max_history)
    for attention in scorer.attentions.values():
        for weight in attention.weights:
            weight.assign(tf.random.normal(weight.shape))
    histories = {schema.SOURCE: [4, 9, 9, 3], schema.TARGET: [5, 2]}
    candidates = [3, 7, 2]
    logits = scorer(
        {
            "source_history": tf.constant([[*histories[schema.SOURCE], 0, 0]], tf.int64),
            "target_history": tf.constant([[*histories[schema.TARGET], 0]], tf.int64),
            "candidates": tf.constant([candidates], tf.int64),
        }
    ).numpy()[0]
    expected = [_reference_logit(scorer, histories, candidate) for candidate in candidates]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


MODELS = [f"model.name={name}" for name in SCORERS] + ["sitn.target_attention=din"]


@pytest.fixture(params=MODELS)
def scorer(request, small):
    manifest = schema.read_manifest(small)
    settings = config.override(config.tiny(), [request.param])
    tables = runs.read_tables(small, manifest, settings)
    return make_scorer(settings, tables, manifest.max_history)


def _users():
    """Of two requests, for a model that reads them."""
    return {"user_id": tf.constant(["u1", "u1"])}


def test_a_request_without_histories_is_scored_from_the_candidate_alone(scorer):
    empty = tf.zeros([2, 3], tf.int64)
    candidates = tf.constant([[3, 4], [3, 4]], tf.int64)
    logits = scorer(
        _users() | {"source_history": empty, "target_history": empty, "candidates": candidates}
    ).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits[0], logits[1])


def test_padding_other_candidates_and_encoding_once_change_no_score(scorer):
    histories = {"source_history": [[4, 9, 9], [3, 0, 0]], "target_history": [[5, 2], [7, 0]]}
    batch = {name: tf.constant(ids, tf.int64) for name, ids in histories.items()}
    candidates = tf.constant([[3, 7, 2], [4, 5, 6]], tf.int64)
    logits = scorer(_users() | batch | {"candidates": candidates}).numpy()
    assert len(np.unique(logits)) == logits.size
    wider = _users() | {name: tf.pad(ids, [[0, 0], [0, 4]]) for name, ids in batch.items()}
    one = scorer(wider | {"candidates": candidates[:, 1:2]}).numpy()
    np.testing.assert_allclose(one, logits[:, 1:2], rtol=1e-5, atol=1e-6)
    apart = encode_and_score(scorer, wider, candidates)
    np.testing.assert_allclose(apart, logits, rtol=1e-5, atol=1e-6)
