"""The cosines of instances and candidates in SITN's score, against NumPy loops."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_scorer
from sitn_tf.models.scorer import History
from tests.click_step import assert_every_weight_has_a_gradient
from tests.sitn_tf import reference
from tests.sitn_tf.models.apart import encode_and_score
from tests.small_dataset import MAX_HISTORY

HISTORIES = {schema.SOURCE: [[4, 9, 9, 3], [0, 0, 0, 0]], schema.TARGET: [[5, 2, 0], [3, 0, 0]]}
CANDIDATES = [[3, 7, 2], [8, 1, 5]]


def _batch():
    histories = {f"{domain}_history": ids for domain, ids in HISTORIES.items()}
    named = histories | {"candidates": CANDIDATES}
    return {name: tf.constant(ids, tf.int64) for name, ids in named.items()}


def _make(small, *changes):
    chosen = config.override(config.tiny(), changes)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    scorer = make_scorer(chosen, tables, MAX_HISTORY)
    for number, weight in enumerate(scorer.trainable_variables):
        weight.assign_add(tf.random.stateless_normal(weight.shape, [number, 1], stddev=0.3))
    return scorer


def _cosines(scorer):
    """`[B, C, domains]`, one pair at a time."""
    cosines = np.zeros([2, 3, len(scorer.items)])
    for column, domain in enumerate(scorer.items):
        for row, history in enumerate(HISTORIES[domain]):
            ids = tf.constant([history], tf.int64)
            vectors = scorer.items[domain](ids)
            encoded = scorer.sequences[domain](vectors, ids != 0).numpy()[0]
            kept = [z for z, item in zip(encoded, history, strict=True) if item]
            p = sum(kept) / len(kept) if kept else np.zeros(encoded.shape[1])
            for place, candidate in enumerate(CANDIDATES[row]):
                v = scorer.items[schema.TARGET](tf.constant([candidate], tf.int64)).numpy()[0]
                length = np.linalg.norm(p) * np.linalg.norm(v)
                cosines[row, place, column] = p @ v / length if length else 0.0
    return cosines


def _without_match(scorer, monkeypatch):
    """What the MLP sees of the batch beside the match, `[6, I]`, and its layers' weights."""
    joined = []
    inner = scorer.joined
    monkeypatch.setattr(scorer, "joined", lambda *parts: joined.append(inner(*parts)) or joined[-1])
    scorer(_batch())
    layers = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in scorer.mlp.layers]
    return joined[0].numpy().reshape(6, -1), layers


@pytest.mark.parametrize("change", [(), ("model.use_source=false",)])
def test_as_inputs_they_are_more_columns(small, change, monkeypatch):
    scorer = _make(small, "sitn.match=inputs", *change)
    joined, layers = _without_match(scorer, monkeypatch)
    assert layers[0][0].shape[0] == joined.shape[-1] + len(scorer.items)
    seen = np.concatenate([joined, 3 * _cosines(scorer).reshape(6, -1)], axis=-1)
    expected = reference.mlp(seen, layers).reshape(2, 3)
    np.testing.assert_allclose(scorer(_batch()), expected, rtol=1e-4, atol=1e-5)


def test_in_the_logit_each_domain_has_a_weight(small, monkeypatch):
    scorer = _make(small, "sitn.match=logit")
    scorer.match_weights.assign([0.5, -2.0])
    joined, layers = _without_match(scorer, monkeypatch)
    assert layers[0][0].shape[0] == joined.shape[-1]
    expected = reference.mlp(joined, layers).reshape(2, 3)
    expected = expected + 3 * _cosines(scorer) @ [0.5, -2.0]
    np.testing.assert_allclose(scorer(_batch()), expected, rtol=1e-4, atol=1e-5)


def test_an_empty_history_matches_nothing(small):
    scorer = _make(small, "sitn.match=logit")
    logits = []
    for weight in (1.0, 9.0):
        scorer.match_weights.assign([weight, 0.0])
        logits.append(scorer(_batch()).numpy())
    assert (logits[0][0] != logits[1][0]).all()
    np.testing.assert_array_equal(logits[0][1], logits[1][1])  # its source history is empty


@pytest.mark.parametrize("match", ["inputs", "logit"])
def test_a_user_needs_one_vector_more_a_domain(small, match):
    encoded = {}
    for name in ("none", match):
        scorer = _make(small, f"sitn.match={name}")
        history = History(tf.random.normal([2, 4, 8]), tf.sequence_mask([4, 0], 4))
        encoded[name] = scorer.encode(dict.fromkeys(schema.DOMAINS, history), {})
    more = encoded[match].keys() - encoded["none"].keys()
    assert more == {"source_instance", "target_instance"}
    for name in more:
        lengths = np.linalg.norm(encoded[match][name], axis=1)
        np.testing.assert_allclose(lengths, [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(scorer(_batch()), encode_and_score(scorer, _batch()), atol=1e-5)


@pytest.mark.parametrize("match", ["inputs", "logit"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_weight_has_a_gradient(small, match, precision):
    scorer = _make(small, f"sitn.match={match}", f"model.precision={precision}")
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 64)))
    assert_every_weight_has_a_gradient(scorer, batch)


def test_only_sitn_has_it():
    assert config.paper().sitn.match == "none"
    with pytest.raises(InputError, match=r"sitn\.match=inputs: model\.name=semi has no section"):
        config.override(config.default(), ["model.name=semi", "sitn.match=inputs"])
