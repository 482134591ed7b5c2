import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.item_tables import ItemTable, pad_lists
from sitn_tf.layers.attention import ActivationUnit, MultiHeadAttention, masked_attention
from sitn_tf.layers.contrast import Instances, InstanceToCluster, InstanceToInstance
from sitn_tf.layers.embedding import (
    ID_SHARE,
    ItemEmbedding,
    hashed_rows,
    look_up,
    masked_mean,
    quotient_and_remainder,
)
from sitn_tf.layers.encoder import SequenceEncoder, recency
from sitn_tf.layers.mlp import join
from sitn_tf.layers.prototypes import ClusterEncoder, spread_directions
from sitn_tf.sections import ContrastConfig, EncoderConfig, ItemsConfig
from tests.sitn_tf import reference

D = 8


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def _sequence(rng, rows=3, steps=5):
    lengths = rng.integers(1, steps + 1, size=rows)
    mask = np.arange(steps) < lengths[:, None]
    return rng.normal(size=(rows, steps, D)).astype(np.float32), mask, lengths


def test_attention_is_equation_1(rng):
    layer = MultiHeadAttention(D, heads=2)
    x, mask, lengths = _sequence(rng)
    queries = rng.normal(size=(3, 4, D)).astype(np.float32)
    out = layer(queries, x, tf.constant(mask)).numpy()
    weights = (layer.query, layer.key, layer.value, layer.output_projection)
    for row, length in enumerate(lengths):
        expected = reference.multi_head_attention(
            queries[row], x[row, :length], *(w.numpy() for w in weights), heads=2
        )
        np.testing.assert_allclose(out[row], expected, rtol=1e-4, atol=1e-5)


def test_attention_golden():
    # One head, identity projections, one query (1, 0), keys (1, 0) and (0, 1), d = 2:
    # logits 1/sqrt 2 and 0; weights e^0.7071 / (e^0.7071 + 1) = 0.66976 and 0.33024.
    layer = MultiHeadAttention(2, heads=1)
    layer.build(None)
    for weight in layer.weights:
        weight.assign(tf.eye(2))
    out = layer(tf.constant([[[1.0, 0.0]]]), tf.eye(2)[None], tf.ones([1, 2], tf.bool))
    np.testing.assert_allclose(out, [[[0.66976, 0.33024]]], atol=1e-5)


def test_untrained_attention_averages():
    # Queries of zero attend alike to all keys; identity projections leave the mean.
    x = tf.constant([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    out = MultiHeadAttention(2, heads=1)(tf.zeros([1, 1, 2]), x, tf.constant([[True, True, False]]))
    np.testing.assert_allclose(out, [[[2.0, 3.0]]], rtol=1e-6)


def test_join_golden():
    # concat(u, v) and with products concat(u, v, u * v).
    u, v = tf.constant([[[2.0, 3.0]]]), tf.constant([[[5.0, 7.0]]])
    np.testing.assert_array_equal(join([u], v, products=False), [[[2, 3, 5, 7]]])
    np.testing.assert_array_equal(join([u], v, products=True), [[[2, 3, 5, 7, 10, 21]]])


@pytest.mark.parametrize("kind", [MultiHeadAttention, ActivationUnit])
def test_attention_does_not_see_padding_and_is_zero_without_keys(rng, kind):
    layer = kind(D, heads=2) if kind is MultiHeadAttention else kind(D)
    x, mask, _ = _sequence(rng)
    queries = rng.normal(size=(3, 2, D)).astype(np.float32)
    plain = layer(queries, x, tf.constant(mask)).numpy()
    noise = np.where(mask[..., None], x, rng.normal(size=x.shape)).astype(np.float32)
    wider = np.concatenate([noise, np.ones((3, 2, D), np.float32)], axis=1)
    wider_mask = np.concatenate([mask, np.zeros((3, 2), bool)], axis=1)
    np.testing.assert_allclose(layer(queries, wider, tf.constant(wider_mask)), plain, atol=1e-5)
    empty = layer(queries, x, tf.zeros_like(mask)).numpy()
    np.testing.assert_array_equal(empty, np.zeros_like(empty))


def test_attention_has_the_gradient_of_its_formula(rng):
    # The gradient is written by hand; automatic differentiation of Eq. 1 is its reference.
    shape = (3, 2, 5, 4)
    q, k, v, weight = (tf.constant(rng.normal(size=shape)) for _ in range(4))
    mask = tf.constant(np.arange(5) < np.array([5, 3, 0])[:, None])
    seen = mask[:, None, None, :]

    def formula(q, k, v):
        weights = tf.nn.softmax(tf.where(seen, tf.matmul(q, k, transpose_b=True), -1e9))
        return tf.matmul(tf.where(seen, weights, 0.0), v)

    both = []
    for attention in (formula, lambda q, k, v: masked_attention(q, k, v, mask)):
        with tf.GradientTape() as tape:
            tape.watch([q, k, v])
            out = attention(q, k, v)
            total = tf.reduce_sum(weight * out)
        both.append([out, *tape.gradient(total, [q, k, v])])
    for expected, ours in zip(*both, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (36,), (5, 3)])
def test_activation_unit_is_a_weighted_sum_without_softmax(rng, hidden):
    # The unit's MLP on each pair by itself, where the layer never makes the pairs.
    layer = ActivationUnit(D, hidden)
    x, mask, _ = _sequence(rng)
    queries = rng.normal(size=(3, 4, D)).astype(np.float32)
    layer(queries, x, tf.constant(mask))
    for dense in layer.unit.layers:
        dense.bias.assign(rng.normal(size=dense.bias.shape))
    out = layer(queries, x, tf.constant(mask)).numpy()
    for row, column in np.ndindex(3, 4):
        expected = np.zeros(D)
        for step in np.flatnonzero(mask[row]):
            k, q = x[row, step], queries[row, column]
            pair = np.concatenate([q, k, q - k, q * k])
            expected += float(layer.unit(pair[None])[0, 0]) * k
        np.testing.assert_allclose(out[row, column], expected, rtol=1e-4, atol=1e-5)


def test_masked_mean_is_equation_2(rng):
    x, mask, lengths = _sequence(rng)
    out = masked_mean(tf.constant(x), tf.constant(mask)).numpy()
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(out[row], reference.mean_pooling(x[row, :length]), rtol=1e-5)
    np.testing.assert_array_equal(masked_mean(x, tf.zeros_like(mask)), np.zeros((3, D)))


def test_encoder_does_not_see_padding(rng):
    layer = SequenceEncoder(EncoderConfig(heads=2, blocks=2), D, max_history=10)
    x, mask, _ = _sequence(rng)
    plain = layer(x, tf.constant(mask)).numpy()
    wider = np.concatenate([x, np.ones((3, 3, D), np.float32)], axis=1)
    wider_mask = np.concatenate([mask, np.zeros((3, 3), bool)], axis=1)
    padded = layer(wider, tf.constant(wider_mask)).numpy()[:, : x.shape[1]]
    np.testing.assert_allclose(padded[mask], plain[mask], rtol=1e-4, atol=1e-5)


def test_encoder_of_the_paper_is_attention_alone(rng):
    config = EncoderConfig(heads=2, residual=False, positions=False, layer_norm=False)
    layer = SequenceEncoder(config, D, max_history=10)
    x, mask, lengths = _sequence(rng, rows=1)
    out = layer(x, tf.constant(mask)).numpy()
    attention = layer.attentions[0]
    weights = (attention.query, attention.key, attention.value, attention.output_projection)
    real = x[0, : lengths[0]]
    expected = reference.multi_head_attention(real, real, *(w.numpy() for w in weights), heads=2)
    np.testing.assert_allclose(out[0, : lengths[0]], expected, rtol=1e-4, atol=1e-5)


def test_recency_counts_from_the_most_recent():
    mask = tf.constant([[True, True, True, False], [True, False, False, False]])
    np.testing.assert_array_equal(recency(mask, 10)[:, :3], [[2, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(recency(mask, 2)[0, :3], [1, 1, 0])


def _table(words=True):
    features = {"brand": np.array([0, 1, 2, 3, 2], np.int32)}
    sizes = {"brand": 4}
    if words:
        features["title_words"] = np.array([[0, 0], [0, 0], [2, 3], [3, 0], [0, 0]], np.int32)
        sizes["title_words"] = 4
    return ItemTable("source", ["", "", "a", "b", "c"], [""] * 5, np.zeros(5), features, sizes)


def test_item_vector_is_the_sum_of_its_parts():
    layer = ItemEmbedding(_table(), ItemsConfig(), D)
    layer.build(None)
    ids, brand = layer.ids.numpy(), layer.feature_weights["brand"].numpy()
    words = layer.feature_weights["title_words"].numpy()
    vectors = layer(tf.constant([[2, 3, 0], [4, 2, 1]], tf.int64)).numpy()
    np.testing.assert_allclose(
        vectors[0, 0], ids[2] + brand[2] + (words[2] + words[3]) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(vectors[0, 1], ids[3] + brand[3] + words[3], rtol=1e-5)
    np.testing.assert_allclose(vectors[1, 0], ids[4] + brand[2], rtol=1e-5)
    np.testing.assert_array_equal(vectors[0, 2], np.zeros(D))
    np.testing.assert_array_equal(vectors[0, 0], vectors[1, 1])


def test_lookup_shares_the_work_and_gives_the_same():
    layer = ItemEmbedding(_table(), ItemsConfig(), D)
    layer.build(None)
    first, second = tf.constant([[2, 3]], tf.int64), tf.constant([[4], [2]], tf.int64)
    for together, alone in zip(
        look_up(layer.vectors, first, second), (layer(first), layer(second)), strict=True
    ):
        np.testing.assert_array_equal(together, alone)


def test_item_gradient_touches_only_the_rows_of_the_batch():
    layer = ItemEmbedding(_table(), ItemsConfig(), D)
    layer.build(None)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.constant([2, 3, 3], tf.int64)))
    gradient = tape.gradient(total, layer.ids)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(np.sort(gradient.indices), [2, 3])


def _id_embedding(items, **options):
    table = ItemTable("source", [""] * items, [""] * items, np.zeros(items), {}, {})
    layer = ItemEmbedding(table, ItemsConfig(**options), D)
    layer.build(None)
    return layer


SHARED = [
    {"id_embedding": "hash", "id_rows": 50},
    {"id_embedding": "quotient_remainder", "id_rows": 7, "id_combination": "product"},
    {"id_embedding": "quotient_remainder", "id_rows": 7, "id_combination": "sum"},
]


@pytest.mark.parametrize("options", [{}, *SHARED], ids=str)
def test_reserved_ids_start_at_zero_and_padding_stays_there(options):
    layer = _id_embedding(40, **options)
    np.testing.assert_array_equal(layer(tf.constant([0, 1], tf.int64)), np.zeros((2, D)))
    for variable in layer.id_variables:
        variable.assign(variable + 1.0)
    padding, unknown, *known = layer(tf.range(40, dtype=tf.int64)).numpy()
    np.testing.assert_array_equal(padding, np.zeros(D))
    # The unknown id shares its rows with no item.
    for variable in layer.id_variables:
        variable.assign(tf.concat([variable[:2], variable[2:] + 1.0], axis=0))
    np.testing.assert_array_equal(layer(tf.constant([1], tf.int64))[0], unknown)
    assert (layer(tf.range(2, 40, dtype=tf.int64)) != np.array(known)).numpy().any(axis=1).all()


@pytest.mark.parametrize("combination", ["product", "sum"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_quotient_and_remainder_give_each_id_a_vector_of_its_own(rows, combination):
    layer = _id_embedding(
        302, id_embedding="quotient_remainder", id_rows=rows, id_combination=combination
    )
    for seed, variable in enumerate(layer.id_variables):
        variable.assign(tf.random.stateless_normal(variable.shape, seed=(seed, rows)))
    vectors = layer(tf.range(1, 302, dtype=tf.int64)).numpy()
    distances = np.abs(vectors[:, None] - vectors[None]).max(axis=-1)
    assert (distances + np.eye(len(vectors)) > 1e-6).all()


def test_quotient_and_remainder_golden():
    # Three remainders: items 0 to 4 are ids 2 to 6; each part lies behind two reserved rows.
    quotient, remainder = quotient_and_remainder(tf.constant([0, 1, 2, 3, 4, 5, 6], tf.int64), 3)
    np.testing.assert_array_equal(quotient, [0, 1, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(remainder, [0, 1, 2, 3, 4, 2, 3])
    layer = _id_embedding(7, id_embedding="quotient_remainder", id_rows=3)
    assert [v.shape[0] for v in layer.id_variables] == [5, 4]
    vector = layer(tf.constant([6], tf.int64))[0]
    np.testing.assert_allclose(vector, layer.ids[3] * layer.quotients[3], rtol=1e-6)


def test_hashed_rows_golden():
    # The upper 31 bits of SplitMix64's output for a state of the id, modulo the rows.
    def split_mix(state):
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert split_mix(0) == 0xE220A8397B1DCDAF  # the published first output for seed 0
    ids = [2, 3, 4, 67_999_999, 2**40]
    expected = [2 + (split_mix(i) >> 33) % 1000 for i in ids]
    np.testing.assert_array_equal(
        hashed_rows(tf.constant([0, 1, *ids], tf.int64), 1000)[2:], expected
    )
    np.testing.assert_array_equal(hashed_rows(tf.constant([0, 1], tf.int64), 1000), [0, 1])


def test_hashing_spreads_ids_evenly():
    counts = np.bincount(hashed_rows(tf.range(2, 100_002, dtype=tf.int64), 1000).numpy() - 2)
    assert counts.min() > 50
    assert counts.max() < 150


@pytest.mark.parametrize("options", [{}, *SHARED], ids=str)
def test_every_way_to_embed_ids_starts_with_the_same_spread(options):
    tf.keras.utils.set_random_seed(1)
    layer = _id_embedding(40_002, **options | ({"id_rows": 200} if options else {}))
    vectors = layer(tf.range(2, 40_002, dtype=tf.int64)).numpy()
    assert vectors.std() == pytest.approx(ID_SHARE * D**-0.5, rel=0.1)
    assert np.abs(vectors.mean(axis=0)).max() < 0.3 * vectors.std()


@pytest.mark.parametrize("options", SHARED, ids=str)
def test_gradients_of_shared_rows_stay_sparse(options):
    layer = _id_embedding(40, **options)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.constant([2, 9, 9], tf.int64)))
    for gradient in tape.gradient(total, layer.id_variables):
        assert isinstance(gradient, tf.IndexedSlices)
        assert len(gradient.indices) == 2


def test_pad_lists_golden():
    padded = pad_lists(np.array([5, 6, 7, 8]), np.array([0, 1, 1, 4]), 2)
    np.testing.assert_array_equal(padded, [[5, 0], [0, 0], [6, 7]])


def test_spread_directions_are_orthogonal_within_a_block():
    rows = spread_directions(tf.TensorShape([10, 4])).numpy()
    np.testing.assert_allclose(rows[:4] @ rows[:4].T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(10), rtol=1e-5)


def _instances(rng, n=6):
    p_s, p_t = (rng.normal(size=(n, D)).astype(np.float32) for _ in range(2))
    return Instances(
        tf.constant(p_s),
        tf.constant(p_t),
        tf.range(n, dtype=tf.int64),
        tf.ones([n], tf.bool),
        tf.range(n),
    )


PAPER = ContrastConfig(
    temperature=1.0,
    similarity="dot",
    reduction="sum",
    assignment_temperature=1.0,
    cluster_norm="none",
    cluster_init="normal",
    top_k=2,
    view="mlp",
)


def test_i2i_layer_is_equations_3_and_4(rng):
    instances = _instances(rng)
    s, t = instances.source.numpy(), instances.target.numpy()
    out = InstanceToInstance(PAPER)(instances)
    np.testing.assert_allclose(out, reference.i2i(s, t, 1) + reference.i2i(t, s, 1), rtol=1e-4)


def test_i2c_layer_is_equations_5_to_7(rng):
    instances = _instances(rng)
    layer = InstanceToCluster(5, D, PAPER)
    out = layer(instances).numpy()

    def one_way(anchors, others, encoder):
        u = reference.new_clusters(reference.assignment(others, encoder.c.numpy()), others)
        dense = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in encoder.mlp.layers]
        q = reference.mlp(reference.top_k_concatenated(others, u, PAPER.top_k), dense)
        return reference.i2c(anchors, q, u, PAPER.temperature)

    s, t = instances.source.numpy(), instances.target.numpy()
    expected = one_way(s, t, layer.target) + one_way(t, s, layer.source)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"similarity": "cosine", "cluster_norm": "l2", "view": "mean"},
        {"negatives": "views"},
        {"exclude_own": True},
        {"stop_cluster_gradient": True},
        {"cluster_norm": "mean"},
    ],
)
def test_each_reading_gives_finite_losses_and_leaves_out_invalid_rows(rng, change):
    layer = InstanceToCluster(5, D, dataclasses.replace(PAPER, **change))
    instances = _instances(rng)
    keep = tf.constant([True, True, True, True, False, False])
    some = instances._replace(valid=keep)
    few = Instances(*(part[:4] for part in instances[:5]))
    np.testing.assert_allclose(layer(some)[:4], layer(few), rtol=1e-3, atol=1e-4)
    assert np.isfinite(layer(instances)).all()


def test_excluding_own_clusters_lowers_the_loss(rng):
    instances = _instances(rng)
    printed = InstanceToCluster(5, D, PAPER)
    without = InstanceToCluster(5, D, dataclasses.replace(PAPER, exclude_own=True))
    printed(instances), without(instances)
    for ours, theirs in zip(without.weights, printed.weights, strict=True):
        ours.assign(theirs)
    assert (without(instances).numpy() < printed(instances).numpy()).all()


def test_stopping_the_cluster_gradient_leaves_no_gradient_to_c(rng):
    instances = _instances(rng)
    for stop in (False, True):
        layer = InstanceToCluster(5, D, dataclasses.replace(PAPER, stop_cluster_gradient=stop))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(instances))
        assert (tape.gradient(loss, layer.target.c) is None) == stop


def test_same_user_is_no_negative(rng):
    instances = _instances(rng, n=3)._replace(user=tf.constant([5, 5, 6], tf.int64))
    out = InstanceToInstance(PAPER)(instances).numpy()
    s, t = instances.source.numpy(), instances.target.numpy()
    pair = [0, 2]
    expected = reference.i2i(s[pair], t[pair], 1) + reference.i2i(t[pair], s[pair], 1)
    np.testing.assert_allclose(out[0], expected[0], rtol=1e-4)


def test_views_golden():
    # p . u = (1, 0, 0.6): the top two are rows 0 and 2; their mean is (0.8, 0.4).
    reading = dataclasses.replace(PAPER, view="mean", granularities=(3,))
    encoder = ClusterEncoder(3, 2, reading)
    u = tf.constant([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    q, top = encoder.views(tf.constant([[1.0, 0.0]]), u)
    np.testing.assert_array_equal(top, [[0, 2]])
    np.testing.assert_allclose(q, [[0.8, 0.4]], rtol=1e-6)
    length = np.sqrt(0.8**2 + 0.4**2)
    cosine = dataclasses.replace(reading, similarity="cosine", cluster_norm="l2")
    unit = ClusterEncoder(3, 2, cosine)
    np.testing.assert_allclose(
        unit.views(tf.constant([[1.0, 0.0]]), u)[0], [[0.8 / length, 0.4 / length]], rtol=1e-6
    )


def test_views_of_equal_clusters_are_finite():
    encoder = ClusterEncoder(4, D, ContrastConfig(granularities=(4,), top_k=2))
    p = tf.zeros([3, D])
    u = encoder(p, tf.ones([3], tf.bool))
    q, top = encoder.views(p, u)
    assert np.isfinite(u).all()
    assert np.isfinite(q).all()
    assert top.shape == (3, 2)
