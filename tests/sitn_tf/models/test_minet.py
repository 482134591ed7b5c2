"""MiNet against a NumPy loop of each of its equations."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.errors import InputError
from sitn_tf.layers.request_features import user_row
from tests.sitn_tf import reference
from tests.sitn_tf.models.joint import asked, make, settings_of

USER, SOURCE, TARGET = "user", schema.SOURCE, schema.TARGET


def _vectors(items, ids):
    return [items(tf.constant([item], tf.int64)).numpy()[0] for item in ids]


def _interest(attention, user, q, history):
    """sum_i alpha_i r_i, alpha a softmax of h^T ReLU(W [p || q || r_i || M r_i * q])."""
    found, scores = np.zeros_like(q), []
    for r in history:
        moved = r @ attention.transfer_matrix.numpy() if attention.transfer else r
        hidden = np.concatenate([user, q, r, moved * q]) @ attention.kernel.numpy()
        scores.append(np.exp(np.maximum(hidden, 0) @ attention.scores.numpy()[:, 0]))
    for r, score in zip(history, scores, strict=True):
        found += score / sum(scores) * r
    return found


def _layers(mlp):
    return [(layer.kernel.numpy(), layer.bias.numpy()) for layer in mlp.layers]


def _target_logit(scorer, user, q, histories):
    interests = {USER: user} if len(user) else {}
    for domain, attention in scorer.attentions.items():
        interests[domain] = _interest(attention, user, q, histories[domain])
    everything = np.concatenate([q, *interests.values()])
    weighed = []
    for interest, vector in interests.items():
        hidden, last = scorer.gates[interest].layers
        of_hidden = np.maximum(everything @ hidden.kernel.numpy(), 0)
        weight = np.exp(of_hidden @ last.kernel.numpy() + last.bias.numpy())
        weighed.append(weight * vector)
    return reference.mlp(np.concatenate([*weighed, q]), _layers(scorer.mlp))[0]


def _source_logit(scorer, user, q, histories):
    seen = [user]
    if scorer.source_attention is not None:
        seen.append(_interest(scorer.source_attention, user, q, histories[SOURCE]))
    return reference.mlp(np.concatenate([*seen, q]), _layers(scorer.source_mlp))[0]


@pytest.mark.parametrize("shown", schema.DOMAINS)
@pytest.mark.parametrize(
    "settings",
    [[], ["model.request_features=user"], ["minet.source_interest=false"]],
    ids=["no profile", "user", "the paper's source task"],
)
def test_a_score_is_its_equations(small, shown, settings):
    scorer = make(small, "model.name=minet", "mlp.products=false", *settings)
    user = np.zeros(0)
    if scorer.request_embedding is not None:
        row = int(user_row(tf.constant([b"u1"]), scorer.config.model.user_buckets)[0])
        user = scorer.request_embedding.tables["user"][row].numpy()
    logit_of = {TARGET: _target_logit, SOURCE: _source_logit}[shown]
    for source, target in (([4, 9, 9], [5, 2]), ([3, 7], [])):
        logits = scorer(asked(shown, source, target), domain=shown).numpy()[0]
        ids = {SOURCE: source, TARGET: target}
        histories = {domain: _vectors(scorer.items[domain], ids[domain]) for domain in ids}
        expected = [
            logit_of(scorer, user, q, histories) for q in _vectors(scorer.items[shown], (3, 7, 2))
        ]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_profile_is_the_features_side_by_side_under_one_weight(small):
    scorer = make(small, "model.name=minet", "model.request_features=hour,user")
    assert list(scorer.gates) == [USER, SOURCE, TARGET]
    assert scorer.attentions[TARGET].kernel.shape == (2 * 8 + 3 * 8, 64)
    for gate in scorer.gates.values():
        last = gate.layers[-1]
        last.kernel.assign(tf.zeros_like(last.kernel))
    # A history of one item has its whole attention, whoever asks.
    one = asked(TARGET, [4], [5]) | {"request_time": tf.constant([7200], tf.int64)}
    other = one | {"user_id": tf.constant([b"u2"])}
    assert np.abs(scorer(one) - scorer(other)).min() > 1e-3
    scorer.gates[USER].layers[-1].bias.assign([-90.0])
    np.testing.assert_allclose(scorer(one), scorer(other), rtol=1e-6)


def test_a_width_below_one_is_an_error():
    with pytest.raises(InputError, match=r"minet\.attention_width=0 is not at least 1"):
        settings_of("model.name=minet", "minet.attention_width=0")
