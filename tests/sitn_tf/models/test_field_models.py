"""FM, Wide & Deep and DeepFM against NumPy loops over their papers' equations."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.predictions import predict
from sitn_tf.layers.factorization import crossed_rows
from sitn_tf.layers.request_features import user_row
from sitn_tf.models.field_scorer import CLICKED, SHOWN
from sitn_tf.models.registry import make_scorer
from sitn_tf.optimizers.row_sparse import make_optimizer
from sitn_tf.training import stage2
from tests.sitn_tf import reference
from tests.sitn_tf.models.apart import encode_and_score

NAMES = ("fm", "wide_deep", "deepfm")
BUCKETS = 50


def make(small, name, *settings, spread=0.5):
    """A model with all weights, and rows of padding too, far from where they start."""
    manifest = schema.read_manifest(small)
    chosen = config.override(
        config.tiny(), [f"model.name={name}", "model.use_source=true", *settings]
    )
    tf.keras.utils.set_random_seed(5)
    scorer = make_scorer(chosen, runs.read_tables(small, manifest, chosen), manifest.max_history)
    for variable in scorer.trainable_variables if spread else ():
        variable.assign_add(tf.random.normal(variable.shape, stddev=spread))
    return scorer


def request(source, target, candidates, user="u1"):
    histories = {"source_history": source, "target_history": target}
    ids = histories | {"candidates": candidates}
    return {name: tf.constant([value], tf.int64) for name, value in ids.items()} | {
        "user_id": tf.constant([user])
    }


def _parts(items, item):
    """Rows of an item, one a field."""
    parts = [items.ids.numpy()[item]]
    for feature, values in items.table.features.items():
        rows = items.feature_weights[feature].numpy()
        if feature == schema.TITLE_WORDS:
            words = [rows[word] for word in values[item] if word]
            parts.append(np.mean(words, axis=0) if words else np.zeros(rows.shape[1]))
        else:
            parts.append(rows[values[item]])
    return parts


def _reference_logit(scorer, histories, candidate, user=None):
    """The models' equations for one candidate: a loop over fields, pairs and crosses."""
    fields, linear = [], 0.0
    if user is not None:
        row = int(user_row(tf.constant([user]), BUCKETS)[0])
        fields.append(scorer.request_embedding.tables["user"].numpy()[row])
        linear += scorer.request_weights.tables["user"].numpy()[row, 0]
    for domain, history in histories.items():
        items = [np.sum(_parts(scorer.items[domain], i), axis=0) for i in history]
        fields.append(np.mean(items, axis=0) if items else np.zeros(8))
        weights = [np.sum(_parts(scorer.item_weights[domain], i), axis=0) for i in history]
        linear += np.mean([w[CLICKED] for w in weights]) if weights else 0.0
    fields += _parts(scorer.items[schema.TARGET], candidate)
    linear += np.sum(_parts(scorer.item_weights[schema.TARGET], candidate), axis=0)[SHOWN]
    pairs = sum(a @ b for a, b in itertools.combinations(fields, 2))
    name = scorer.config.model.name
    if name == "fm":
        return scorer.bias.numpy() + linear + pairs
    dense = [(x.kernel.numpy(), x.bias.numpy()) for x in scorer.deep.layers if x.weights]
    deep = reference.mlp(np.concatenate(fields)[None], dense)[0, 0]
    if name == "deepfm":
        return linear + pairs + deep
    crosses = 0.0
    for domain, history in histories.items():
        weights = scorer.crosses[domain].table.numpy()[:, 0]
        for item in {*history[-scorer.config.wide.recent_items :]}:
            pair = (tf.constant([[i]], tf.int64) for i in (candidate, item))
            crosses += weights[int(crossed_rows(*pair, scorer.config.wide.buckets)[0, 0, 0])]
    return linear + crosses + deep


SETTINGS = {
    "plain": (),
    "user": ("model.request_features=user", f"model.user_buckets={BUCKETS}"),
    "single domain": ("model.use_source=false",),
    "crosses": ("wide.recent_items=2", "wide.buckets=7"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", SETTINGS)
def test_a_logit_is_that_of_the_equations(small, name, change):
    if change == "crosses" and name != "wide_deep":
        pytest.skip("no crosses")
    scorer = make(small, name, *SETTINGS[change])
    user = "u1" if change == "user" else None
    for source, target in ([4, 9, 9, 3], [5, 2]), ([], [7, 7, 8]), ([], []):
        histories = {schema.SOURCE: source, schema.TARGET: target}
        if change == "single domain":
            del histories[schema.SOURCE]
        candidates = [3, 7, 2, 1]
        expected = [_reference_logit(scorer, histories, c, user) for c in candidates]
        padded = request([*source, 0], [*target, 0, 0], candidates)
        np.testing.assert_allclose(scorer(padded)[0], expected, rtol=1e-4, atol=1e-4)
        apart = encode_and_score(scorer, padded)
        np.testing.assert_allclose(apart[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_bag_has_no_order_and_no_padding(small, name):
    scorer = make(small, name)
    logits = scorer(request([4, 9, 3, 3], [5, 2, 8], [3, 7]))
    turned = scorer(request([3, 9, 3, 4], [8, 5, 2], [3, 7]))
    padded = scorer(request([0, 4, 0, 9, 3, 3, 0], [5, 2, 0, 8, 0], [3, 7]))
    other = scorer(request([3, 9, 3, 6], [8, 5, 2], [3, 7]))
    np.testing.assert_allclose(turned, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(padded, logits, rtol=1e-4, atol=1e-5)
    assert np.abs(other - logits).min() > 1e-3


def test_order_says_which_items_are_crossed(small):
    scorer = make(small, "wide_deep", "wide.recent_items=1")
    one, turned = (scorer(request([4], target, [3, 7])) for target in ([5, 2], [2, 5]))
    assert np.abs(one - turned).min() > 1e-3
    for crosses in scorer.crosses.values():
        crosses.table.assign(tf.zeros_like(crosses.table))
    one, turned = (scorer(request([4], target, [3, 7])) for target in ([5, 2], [2, 5]))
    np.testing.assert_allclose(one, turned, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ids", ["full", "hash", "quotient_remainder"])
def test_a_gradient_reaches_every_weight_and_tables_by_rows(small, name, ids):
    features = "model.request_features=user,hour"
    scorer = make(small, name, features, f"items.id_embedding={ids}", "items.id_rows=5")
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 16)))
    with tf.GradientTape() as tape:
        loss = stage2.scorer_losses(scorer, batch)["loss"]
    variables = scorer.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.name
        in_network = variable.name.startswith(("dense", "bias"))
        assert isinstance(gradient, tf.IndexedSlices) != in_network, variable.name


@pytest.mark.parametrize("name", NAMES)
def test_the_features_of_items_are_kept_once(small, name):
    scorer = make(small, name)
    names = [variable.name for variable in scorer.non_trainable_variables]
    of_items = [name for name in names if "_items/" in name]
    assert len(of_items) == len(set(of_items)) == 4
    assert set(names) - set(of_items) == {"popularity/fit:0"}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, "adam") for name in NAMES),
        ("fm", "adagrad"),
        *(pytest.param(name, "adagrad", marks=pytest.mark.slow) for name in NAMES[1:]),
    ],
)
def test_a_planted_interest_is_learned(small, name, optimizer):
    scorer = make(small, name, "items.side_features=", spread=0.0)
    settings = scorer.config.stage2
    adam = make_optimizer(dataclasses.replace(settings, learning_rate=0.05, optimizer=optimizer), 1)
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 120)))
    variables = scorer.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = stage2.scorer_losses(scorer, batch)["loss"]
        adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(40):
        step()
    scored = predict(scorer, data.read_split(small, schema.STAGE2, schema.TEST, 30))
    assert metrics.auc(scored.label, scored.logit) > 0.95


def test_a_served_item_of_fm_is_one_vector_and_two_numbers(small):
    scorer = make(small, "fm")
    ids = tf.constant([0, 3], tf.int64)
    assert scorer.item_vectors(schema.TARGET, ids).shape == (2, 8 + 2)
    assert scorer.item_vectors(schema.SOURCE, ids).shape == (2, 8 + 1)
    assert make(small, "deepfm").item_vectors(schema.TARGET, ids).shape == (2, 3 * 8 + 2)
    # Ids below 15: four digits.
    wide = make(small, "wide_deep")
    assert wide.item_vectors(schema.TARGET, ids).shape == (2, 3 * 8 + 2 + 4)
    for made in (scorer, wide):
        assert not made.item_vectors(schema.TARGET, ids)[0].numpy().any()
    without = make(small, "wide_deep", "wide.recent_items=0")
    assert without.item_vectors(schema.TARGET, ids).shape == (2, 3 * 8 + 2)
    assert not any("crosses" in variable.name for variable in without.variables)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_low_precision_is_near(small, name, precision):
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 16)))
    logits = make(small, name)(batch).numpy()
    low = make(small, name, f"model.precision={precision}")(batch).numpy()
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, logits, atol=0.03 * np.abs(logits).max())
