"""CLSR against loops in NumPy: what it sees of a user, its contrast, and what it can learn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.layers.interest_contrast import interest_contrast, proxies
from sitn_tf.layers.request_features import user_row
from sitn_tf.models.registry import make_scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam
from sitn_tf.sections import ClsrConfig
from sitn_tf.training import stage2
from tests.click_step import make_click_step, train_by_heart
from tests.sitn_tf import reference
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches

ONE, BOTH = ("model.use_source=false",), ("model.use_source=true",)
BUCKETS = 50
SMALL = ("model.name=clsr", f"model.user_buckets={BUCKETS}", "clsr.longer_than=2")


def _scorer(small, *settings):
    chosen = config.override(config.tiny(), [*SMALL, *settings])
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    scorer = make_scorer(chosen, tables, 8)
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.2))
    return scorer


def _batch(small, rows=12):
    return next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, rows)))


def _dense(layers):
    weights = [layer for layer in layers if layer.weights]
    return [(w.kernel.numpy(), 0.0 if w.bias is None else w.bias.numpy()) for w in weights]


def _attended(attention, query, sequence):
    layers = _dense(attention.unit.layers)
    return reference.query_attention(query, sequence, attention.key.numpy(), layers)


def _states(gru, sequence, start=None):
    """The states of a GRU, the one it starts from included."""
    start = np.zeros(gru.units) if start is None else start
    weights = [w.numpy() for w in (gru.kernel, gru.recurrent, gru.bias)]
    after = reference.augru(sequence, np.ones(len(sequence)), *weights, start=start)
    return np.concatenate([start[None], after])


def _reference_interests(scorer, domain, history, user, v):
    """u_l, u_s and their mixture for one candidate of a user, by the equations."""
    own = scorer.interests[domain]
    row = int(user_row(tf.constant([user]), BUCKETS)[0])
    long_user, short_user = (
        users.tables[schema.USER].numpy()[row] for users in (own.long_user, own.short_user)
    )
    e = scorer.items[domain](tf.constant(history, tf.int64)).numpy()
    long = _attended(own.long_attention, long_user, e)
    query = np.concatenate([_states(own.intention, e, short_user)[-1], v])
    short = _attended(own.short_attention, query, _states(own.evolution, e)[1:])
    seen = np.concatenate([_states(own.state, e)[-1], v, long, short])
    alpha = 1.0 / (1.0 + np.exp(-reference.mlp(seen, _dense(own.fusion.layers))[0]))
    return long, short, alpha * long + (1.0 - alpha) * short


def _reference_scores(scorer, histories, user, candidates):
    """Logits, and by domain u_l and u_s, of each candidate."""
    logits, interests = [], []
    for candidate in candidates:
        v = scorer.items["target"](tf.constant([candidate], tf.int64)).numpy()[0]
        of = {d: _reference_interests(scorer, d, histories[d], user, v) for d in scorer.interests}
        values = np.concatenate([*(u for _, _, u in of.values()), v])
        logits.append(reference.mlp(values, _dense(scorer.mlp.layers))[0])
        interests.append(of)
    return np.array(logits), interests


@pytest.mark.parametrize("domains", [ONE, BOTH])
def test_a_score_is_its_equations(small, domains):
    scorer = _scorer(small, *domains, "mlp.products=false")
    assert set(scorer.interests) == ({"target"} if domains == ONE else {"source", "target"})
    for source, target, user in (([4, 9, 9, 3], [5, 2], "u1"), ([3], [], "u2"), ([], [6, 6], "")):
        inputs = {
            "source_history": tf.constant([[*source, 0]], tf.int64),
            "target_history": tf.constant([[*target, 0, 0]], tf.int64),
            "candidates": tf.constant([[3, 7, 2]], tf.int64),
            "user_id": tf.constant([user]),
        }
        histories = {"source": source, "target": target}
        expected, _ = _reference_scores(scorer, histories, user, [3, 7, 2])
        np.testing.assert_allclose(scorer(inputs).numpy()[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("contrast", ["triplet", "bpr"])
@pytest.mark.parametrize("domains", [ONE, BOTH])
def test_the_contrast_is_a_mean_over_the_candidates_of_long_histories(small, domains, contrast):
    settings = (f"clsr.contrast={contrast}", "clsr.contrast_weight=0.3", "clsr.recent_items=2")
    scorer = _scorer(small, *domains, *settings, "mlp.products=false")
    batch = _batch(small, 6)
    margin = 1.0 if contrast == "triplet" else None
    expected = 0.0
    for domain in scorer.interests:
        items, terms = scorer.items[domain], []
        for row in range(6):
            ids = {d: batch[f"{d}_history"].numpy()[row] for d in schema.DOMAINS}
            histories = {d: part[part > 0] for d, part in ids.items()}
            if len(histories[domain]) <= 2:
                continue
            shown = batch["candidates"].numpy()[row]
            user = batch["user_id"].numpy()[row]
            e = items(tf.constant(histories[domain])).numpy()
            _, interests = _reference_scores(scorer, histories, user, shown[shown > 0])
            terms += [
                reference.interest_contrast(*of[domain][:2], e, 2, margin) for of in interests
            ]
        assert 0 < len(terms) < 30
        expected += 0.3 * sum(terms) / len(terms)
    losses = stage2.scorer_losses(scorer, batch)
    assert list(losses) == ["loss", "click", "interests"]
    np.testing.assert_allclose(losses["interests"], expected, rtol=1e-4)
    np.testing.assert_allclose(losses["loss"], losses["click"] + losses["interests"], rtol=1e-6)
    without = _scorer(small, *domains, "clsr.contrast_weight=0")
    assert list(stage2.scorer_losses(without, batch)) == ["loss"]


def test_proxies_are_means_of_all_and_of_the_last():
    vectors = tf.constant([[[1.0], [2.0], [4.0], [9.0]], [[3.0], [5.0], [7.0], [0.0]]])
    mask = tf.constant([[True, True, True, False], [False] * 4])
    whole, recent = proxies(vectors, mask, 2)
    np.testing.assert_allclose(whole, [[7 / 3], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(recent, [[3.0], [0.0]])
    for width in (0, 1):
        few = proxies(vectors[:1, :width], mask[:1, :width], 2)
        np.testing.assert_allclose(few, np.full([2, 1, 1], float(width)))


@pytest.mark.parametrize("contrast", ["triplet", "bpr"])
def test_where_no_history_is_long_the_contrast_is_0_with_a_gradient_of_0(contrast):
    short = tf.random.stateless_normal([3, 4, 8], [1, 2])
    own = ClsrConfig(contrast=contrast, longer_than=2)
    mask = tf.constant([[True, True], [False, False], [True, False]])
    for shown, rows in ((tf.ones([3, 4], tf.bool), 3), (tf.ones([0, 4], tf.bool), 0)):
        with tf.GradientTape() as tape:
            tape.watch(short)
            loss = interest_contrast(
                short[:rows, 0], short[:rows], short[:rows, :2], mask[:rows], shown, own
            )
        assert loss == 0.0
        np.testing.assert_array_equal(tape.gradient(loss, short), tf.zeros_like(short))


@pytest.mark.parametrize("domains", [ONE, BOTH])
def test_every_weight_has_a_gradient(small, domains):
    scorer, batch = _scorer(small, *domains), _batch(small)
    with tf.GradientTape(persistent=True) as tape:
        losses = stage2.scorer_losses(scorer, batch)
    for loss in (losses["loss"], losses["click"]):
        gradients = tape.gradient(loss, scorer.trainable_variables)
        for variable, gradient in zip(scorer.trainable_variables, gradients, strict=True):
            largest = np.abs(tf.convert_to_tensor(gradient)).max()
            assert 1e-6 < largest < np.inf, variable.name
        rows = [
            g for g in gradients if isinstance(g, tf.IndexedSlices) and g.shape[0] == BUCKETS + 1
        ]
        assert [g.values.shape[0] for g in rows] == [12] * 2 * len(scorer.interests)


def test_padding_changes_no_loss(small):
    scorer, batch = _scorer(small, *BOTH), _batch(small)
    wide = {"source_history": 3, "target_history": 2, "candidates": 4, "labels": 4}
    padded = batch | {key: tf.pad(batch[key], [[0, 0], [0, n]]) for key, n in wide.items()}
    for name, loss in stage2.scorer_losses(scorer, batch).items():
        np.testing.assert_allclose(stage2.scorer_losses(scorer, padded)[name], loss, rtol=1e-5)


def test_the_softmax_loss_is_a_mean_over_requests_with_a_click(small, two_cpus):
    scorer, batch = _scorer(small, *ONE, "clsr.loss=softmax"), _batch(small)
    assert (scorer.ranks_candidates, _scorer(small, *ONE).ranks_candidates) == (True, False)
    # No click, one of one candidate, two clicks, and as many as there are.
    labels, candidates = (batch[name].numpy() for name in ("labels", "candidates"))
    labels[:3], candidates[1, 1:] = [[0] * 5, [1, 0, 0, 0, 0], [1, 0, 1, 0, 0]], 0
    batch |= {"labels": tf.constant(labels), "candidates": tf.constant(candidates)}
    log_q = np.linspace(-3.0, 1.0, scorer.items[schema.TARGET].table.size).astype(np.float32)
    logits = scorer(batch, training=True).numpy()
    for correction in (None, log_q):
        terms = []
        for row, real in enumerate(candidates > 0):
            corrected = logits[row, real]
            if correction is not None:
                corrected = corrected - log_q[candidates[row, real]]
            if labels[row, real].any():
                terms.append(reference.softmax_cross_entropy(labels[row, real], corrected))
        given = None if correction is None else tf.constant(correction)
        losses = stage2.scorer_losses(scorer, batch, given)
        assert 0 < len(terms) < 12
        np.testing.assert_allclose(losses["click"], np.mean(terms), rtol=1e-5)

    strategy = cpu_strategy(two_cpus)
    parts = split_rows(strategy, batch | {"logits": tf.constant(logits)}, (2, 10))
    shares = strategy.run(
        lambda part: stage2.mean_click_loss(part["logits"], part, softmax=True), args=(parts,)
    )
    whole = stage2.mean_click_loss(tf.constant(logits), batch, softmax=True)
    np.testing.assert_allclose(strategy.reduce("SUM", shares, axis=None), whole, rtol=1e-6)


@pytest.mark.usefixtures("op_by_op")
def test_a_replica_without_rows_changes_nothing(small, two_cpus):
    chosen = config.override(config.tiny(), [*SMALL, *ONE])
    batch = read_batches(small, schema.STAGE2)[0]
    outcomes = [
        Trial(small, schema.STAGE2, cpu_strategy(two_cpus[:devices]), chosen).loss_and_gradients(
            batch, split
        )
        for devices, split in ((1, (ROWS,)), (2, (ROWS, 0)))
    ]
    assert_same(*outcomes)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_near_float32(small, precision):
    batch = _batch(small)
    exact = stage2.scorer_losses(_scorer(small, *BOTH), batch)
    rounded = stage2.scorer_losses(_scorer(small, *BOTH, f"model.precision={precision}"), batch)
    for name, loss in exact.items():
        assert rounded[name].dtype == tf.float32
        np.testing.assert_allclose(rounded[name], loss, rtol=0.05)


def test_a_user_is_read_and_one_who_was_never_seen_is_unknown(small):
    chosen = config.override(config.tiny(), [*SMALL, *BOTH])
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    scorer = make_scorer(chosen, tables, 8)
    assert scorer.request_inputs == (schema.USER_ID,)
    hour = dataclasses.replace(chosen.model, request_features=("user", "hour"))
    featured = make_scorer(dataclasses.replace(chosen, model=hour), tables, 8)
    assert featured.request_inputs == (schema.USER_ID, schema.REQUEST_TIME)
    assert featured.reads[3:] == featured.request_inputs
    batch = _batch(small)
    optimizer = RowSparseAdam(learning_rate=0.1)
    optimizer.build(scorer.trainable_variables)
    make_click_step(tf.distribute.get_strategy(), scorer, optimizer)(batch)
    seen = {int(row) for row in user_row(batch["user_id"], BUCKETS)}
    new = next(f"n{i}" for i in range(999) if int(user_row([f"n{i}"], BUCKETS)[0]) not in seen)
    one = {name: tf.repeat(value[:1], 3, axis=0) for name, value in batch.items()}
    users = tf.stack(["", new, batch["user_id"][0]])
    logits = scorer(one | {"user_id": users}).numpy()
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5)
    assert np.abs(logits[2] - logits[0]).max() > 2e-5


def _clicks_in_order(order):
    """Candidate 4 is clicked after 2 then 3, candidate 5 after 3 then 2."""
    histories = np.where(order[:, None], [[6, 2, 3]], [[6, 3, 2]])
    rows = len(order)
    return {
        "source_history": tf.zeros([rows, 0], tf.int64),
        "target_history": tf.constant(histories, tf.int64),
        "candidates": tf.constant(np.tile([4, 5], (rows, 1)), tf.int64),
        "labels": tf.constant(np.stack([order, ~order], axis=1), tf.int64),
        "user_id": tf.constant(["u1"] * rows),
    }


def test_its_softmax_learns_an_order_of_recent_clicks(small):
    order = np.arange(16) % 2 == 0
    batch = _clicks_in_order(order)
    chosen = config.override(
        config.tiny(), ["model.name=clsr", "clsr.loss=softmax", "items.id_dropout=0"]
    )
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    scorer = make_scorer(chosen, tables, 8)
    train_by_heart(scorer, batch)
    logits = scorer(batch).numpy()
    assert (np.where(order, 1.0, -1.0) * (logits[:, 0] - logits[:, 1]) > 1.0).all()
