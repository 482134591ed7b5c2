"""Items' vectors in the models: one projection for both domains, from stage 1 to an export."""

import numpy as np
import pytest
import tensorflow as tf

from export import item_vectors, native, requests, signatures
from export.exporting import export
from export.options import ExportOptions
from export.requests import Request
from sitn_tf import config, data, schema, trained_models
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.layers import randomness
from sitn_tf.models.registry import SCORERS, make_pretrainer, make_scorer
from sitn_tf.training import stage1, stage2
from tests.export.small_run import write_small_run
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches
from tests.sitn_tf.models.apart import encode_and_score
from tests.sitn_tf.models.made import made
from tests.small_dataset import (
    SOURCE_ITEMS,
    TARGET_ITEMS,
    VECTOR_DIM,
    write_small_dataset,
)

pytestmark = pytest.mark.usefixtures("module_op_by_op")

SIZES = {schema.SOURCE: SOURCE_ITEMS, schema.TARGET: TARGET_ITEMS}


@pytest.fixture(scope="module")
def with_vectors(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("with_vectors"), vectors=schema.DOMAINS)


def _ids(domain):
    return tf.range(SIZES[domain], dtype=tf.int64)


def _projections(model):
    return [v for v in model.trainable_variables if "projection" in v.name]


def test_the_projected_vector_is_a_part_of_an_item(with_vectors):
    scorer = made(make_scorer, with_vectors)
    projection = scorer.items[schema.SOURCE].projection
    assert scorer.items[schema.TARGET].projection is projection
    assert projection.kernel.shape == (VECTOR_DIM, scorer.config.model.embedding_dim)
    for domain, items in scorer.items.items():
        assert items.table.vectors.dtype == np.float16
        whole = scorer.item_vectors(domain, _ids(domain)).numpy()
        kernel = projection.kernel.numpy()
        projection.kernel.assign(tf.zeros_like(kernel))
        without = scorer.item_vectors(domain, _ids(domain)).numpy()
        projection.kernel.assign(kernel)
        expected = items.table.vectors.astype(np.float32) @ kernel
        np.testing.assert_allclose(whole - without, expected, atol=1e-6)
        np.testing.assert_array_equal(whole[0], np.zeros_like(whole[0]))
    assert len(_projections(scorer)) == 1
    assert len(scorer.variables_of(["items"])) == len(
        {id(v) for v in scorer.variables_of(["items"])}
    )


def test_vectors_are_kept_as_they_are_and_never_trained(with_vectors):
    items = made(make_scorer, with_vectors).items[schema.TARGET]
    assert items.vectors_of_items.dtype == tf.float16
    assert not items.vectors_of_items.trainable


@pytest.mark.parametrize("settings", [["items.side_features=brand"], ["items.side_features="]])
def test_a_model_may_leave_vectors_out(with_vectors, settings):
    scorer = made(make_scorer, with_vectors, *settings)
    assert _projections(scorer) == []
    assert scorer.items[schema.SOURCE].table.vectors is None


@pytest.mark.parametrize("domain", schema.DOMAINS)
def test_one_domain_may_have_none(tmp_path, domain):
    data_dir = write_small_dataset(tmp_path, vectors=(domain,))
    scorer = made(make_scorer, data_dir)
    assert len(_projections(scorer)) == 1
    assert [d for d, items in scorer.items.items() if items.projection is not None] == [domain]
    control = made(make_scorer, data_dir, "model.use_source=false")
    assert len(_projections(control)) == (domain == schema.TARGET)


def test_the_gradient_reaches_the_projection_from_both_domains(with_vectors):
    pretrainer = made(make_pretrainer, with_vectors)
    batch = next(iter(data.read_split(with_vectors, schema.STAGE1, schema.TRAIN, 12)))
    [kernel] = [v for v in pretrainer.trained_variables() if "projection" in v.name]
    gradients = []
    for domain in schema.DOMAINS:
        with tf.GradientTape() as tape:
            vectors = pretrainer.items[domain](batch[schema.HISTORY_OF_DOMAIN[domain].name])
            total = tf.reduce_sum(vectors)
        gradients.append(tape.gradient(total, kernel))
    with tf.GradientTape() as tape:
        loss = pretrainer.loss(batch, tf.constant(0, tf.int64))["loss"]
    gradients.append(tape.gradient(loss, kernel))
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


IN_BFLOAT16 = ("sitn", "dien", "wide_deep")
"""In every run of the tests: of one of each kind of model, and all in the slow ones."""


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float32") for name in SCORERS),
        *(
            pytest.param(name, "bfloat16", marks=[] if name in IN_BFLOAT16 else [pytest.mark.slow])
            for name in SCORERS
        ),
    ],
)
def test_every_model_scores_and_trains_them(with_vectors, name, precision):
    settings = [f"model.name={name}", f"model.precision={precision}"]
    scorer = made(make_scorer, with_vectors, *settings)
    batch = next(iter(data.read_split(with_vectors, schema.STAGE2, schema.TRAIN, 12)))
    with tf.GradientTape() as tape:
        loss = stage2.mean_click_loss(scorer(batch, training=True), batch)
    gradients = tape.gradient(loss, _projections(scorer) + _linear(scorer))
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    if precision == "float32":
        np.testing.assert_allclose(scorer(batch), encode_and_score(scorer, batch), atol=1e-5)


def _linear(scorer):
    """The linear weights of vectors, of the models that have these."""
    return [v for v in scorer.trainable_variables if "weights/vector" in v.name]


@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
def test_two_replicas_are_one(with_vectors, two_cpus, stage):
    batch = read_batches(with_vectors, stage)[0]
    outcomes = []
    for devices, split in ((1, (ROWS,)), (2, (7, 4))):
        trial = Trial(with_vectors, stage, cpu_strategy(two_cpus[:devices]))
        assert len(_projections(trial.model)) == 1
        outcomes.append(trial.loss_and_gradients(batch, split))
    assert_same(*outcomes)


def test_stage_2_starts_from_the_projection_of_stage_1(with_vectors, tmp_path, two_cpus):
    strategy = cpu_strategy(two_cpus[:1])
    chosen = config.override(
        config.tiny(),
        ["stage1.epochs=1", "stage2.epochs=1", "stage2.min_lift=0", "stage2.encoders=freeze"],
    )
    stage1.run_stage1(chosen, with_vectors, tmp_path / "stage1", strategy)
    scorer = made(make_scorer, with_vectors)
    fresh = scorer.items[schema.SOURCE].projection.kernel.numpy()
    restored = stage2.restore_encoders(scorer, str(tmp_path / "stage1"))
    assert sum("projection" in v.name for v in restored.learned) == 1
    trained = scorer.items[schema.TARGET].projection.kernel.numpy()
    assert np.abs(trained - fresh).max() > 1e-4
    stage2.run_stage2(chosen, with_vectors, tmp_path / "stage2", strategy, str(tmp_path / "stage1"))
    loaded = trained_models.load_scorer(tmp_path / "stage2").scorer
    for items in loaded.items.values():
        np.testing.assert_array_equal(items.projection.kernel, trained)


def test_an_export_folds_them_away(with_vectors, tmp_path, monkeypatch):
    """Some rows at a time: nothing gathers the table."""
    monkeypatch.setattr(item_vectors, "FOLD_ROWS", 8)
    run_dir = write_small_run(tmp_path, dataset=with_vectors)
    scorer = trained_models.load_scorer(run_dir).scorer
    for domain, folding in item_vectors.fold(scorer).items():
        parts = list(folding)
        assert [len(part) for part in parts[:-1]] == [8] * (len(parts) - 1)
        assert 0 < len(parts[-1]) <= 8
        folded = np.concatenate(parts)
        items = scorer.items[domain]
        expected = np.sum([part.numpy() for part in items.fields(_ids(domain))], axis=0)
        np.testing.assert_allclose(folded[1:], expected[1:], atol=1e-6)
        moved = items.table.vectors.any(axis=1)
        by_vector = items.table.vectors.astype(np.float32) @ items.projection.kernel.numpy()
        assert np.abs(by_vector[moved]).max(axis=1).min() > 1e-3
    folder = tmp_path / "servable"
    export(run_dir, folder, ExportOptions(goldens=32))
    asked = [Request(("s2", "s3", "s9"), ("t5",), ("t2", "t3", "t9"))]
    with native.Session(folder / "1") as session:
        served = session.run(signatures.SCORE, requests.score_inputs(asked))["logit"]
    batch = {
        "source_history": tf.constant([[2, 3, 9]], tf.int64),
        "target_history": tf.constant([[5]], tf.int64),
        "candidates": tf.constant([[2, 3, 9]], tf.int64),
    }
    np.testing.assert_allclose(served, scorer(batch), atol=1e-6)


def test_dropped_ids_leave_what_else_is_known(with_vectors):
    """id_dropout in a step of training: ids are there or not, whole, and never where alone."""
    scorer = made(make_scorer, with_vectors, "items.id_dropout=0.5")
    for domain, items in scorer.items.items():
        ids = _ids(domain)
        whole = items.vectors(ids).numpy()
        of_ids = items.id_vectors(ids).numpy() * (ids.numpy() != schema.PAD_ID)[:, None]
        with randomness.at_step(0, tf.constant(1, tf.int64)):
            seen = items.vectors(ids).numpy()
        dropped = np.any(seen != whole, axis=1)
        np.testing.assert_allclose(seen, whole - dropped[:, None] * of_ids, atol=1e-6)
        described = items.table.described
        assert not dropped[~described].any()
        assert 0 < dropped[described].mean() < 1
