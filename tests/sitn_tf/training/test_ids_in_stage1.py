"""Whose id embeddings stage 1 trains, and what stage 2 makes of it: an item decides."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema, trained_models
from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.models.registry import make_pretrainer
from sitn_tf.optimizers.row_sparse import RowSparseAdam, RowWiseAdagrad
from sitn_tf.training import stage1, stage2, steps
from tests.small_dataset import MAX_HISTORY, write_small_dataset

SETTINGS = (
    "items.side_features=vector",
    "contrast.i2c_weight=0",
    "stage1.train_ids=false",
    "stage1.epochs=1",
    "stage2.epochs=1",
)
"""Every fifth item has no vector."""


@pytest.fixture(scope="module")
def some_described(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("some"), vectors=schema.DOMAINS)


def _pretrainer(data_dir, *changes):
    chosen = config.override(config.tiny(), [*SETTINGS, *changes])
    tables = runs.read_tables(data_dir, schema.read_manifest(data_dir), chosen)
    return make_pretrainer(chosen, tables, MAX_HISTORY)


@pytest.mark.parametrize("features", ["vector", "title_words", "title_words,vector"])
def test_what_the_layer_takes_for_described_is_what_the_table_does(some_described, features):
    model = _pretrainer(some_described, f"items.side_features={features}")
    for items in model.items.values():
        every = tf.range(items.table.size, dtype=tf.int64)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(items.vectors(every))
        reached = np.zeros(items.table.size, bool)
        reached[tape.gradient(total, items.ids).indices.numpy()] = True
        expected = ~items.table.described
        assert expected[2:].any() == (features != "title_words,vector")
        np.testing.assert_array_equal(reached[2:], expected[2:])
        assert not reached[:2].any()


@pytest.mark.parametrize("change", [[], ["items.id_embedding=hash", "items.id_rows=5"]])
def test_sparing_ids_changes_no_vector(some_described, change):
    tf.keras.utils.set_random_seed(0)
    spared = _pretrainer(some_described, *change)
    tf.keras.utils.set_random_seed(0)
    trained = _pretrainer(some_described, *change, "stage1.train_ids=true")
    for domain, items in spared.items.items():
        ids = tf.constant([[3, 0, 5, 10, 10], [1, 2, 12, 14, 7]], tf.int64)
        np.testing.assert_array_equal(items(ids), trained.items[domain](ids))


@pytest.mark.usefixtures("op_by_op")
@pytest.mark.parametrize(("optimizer", "devices"), [(RowSparseAdam, 2), (RowWiseAdagrad, 1)])
def test_a_step_leaves_the_ids_of_described_items(some_described, two_cpus, optimizer, devices):
    """Their decay and slots too; a replica may have no other items."""
    strategy = cpu_strategy(two_cpus[:devices])
    with strategy.scope():
        model = _pretrainer(some_described)
        rule = optimizer(learning_rate=0.1, row_decay=0.1)
        rule.build(model.trained_variables())
    step = steps.make_step(strategy, model.trained_variables(), rule, model.loss)
    batch = next(iter(data.read_split(some_described, schema.STAGE1, schema.TRAIN, 16)))
    source, target = (model.items[domain] for domain in schema.DOMAINS)
    # Source items without a vector are in the second replica's rows alone, target items nowhere.
    named = {d: f.name for d, f in schema.HISTORY_OF_DOMAIN.items()}
    rows = tf.where(tf.range(16)[:, None] < 8, 6, batch[named[schema.SOURCE]])
    batch[named[schema.SOURCE]] = tf.where(batch[named[schema.SOURCE]] == 0, rows * 0, rows)
    batch[named[schema.TARGET]] = tf.minimum(batch[named[schema.TARGET]], 4)
    before = [items.ids.numpy() for items in (source, target)]
    for _ in range(2):
        losses = tf.function(step)(split_rows(strategy, batch))
    assert np.isfinite(losses["loss"])
    moved = [
        (items.ids.numpy() != was).any(axis=1)
        for items, was in zip((source, target), before, strict=True)
    ]
    assert moved[0].any()
    assert not (moved[0] & source.table.described).any()
    assert not moved[1].any()
    for slot in rule.variables[1:]:
        if slot.shape[:1] == source.ids.shape[:1]:
            assert not slot.numpy()[source.table.described].any()


def test_a_table_of_which_all_items_are_described_is_left_out(some_described):
    model = _pretrainer(some_described, "items.side_features=brand,vector")
    trained = {id(v) for v in model.trained_variables()}
    for items in model.items.values():
        assert not trained & {id(v) for v in items.id_variables}
    assert id(model.items[schema.SOURCE].feature_weights["brand"]) in trained


def test_stage_2_holds_back_what_stage_1_learned_and_nothing_else(
    some_described, tmp_path, two_cpus, capsys
):
    strategy = cpu_strategy(two_cpus[:1])
    chosen = config.override(config.tiny(), [*SETTINGS, "stage2.encoders=freeze"])
    stage1.run_stage1(chosen, some_described, tmp_path / "stage1", strategy)
    init, run_dir = str(tmp_path / "stage1"), tmp_path / "stage2"
    stage2.run_stage2(chosen, some_described, run_dir, strategy, init)
    described = runs.read_json(run_dir / runs.INITIALIZATION_FILE, None)
    in_part = ["source_items/ids:0 [20, 8]", "target_items/ids:0 [15, 8]"]
    assert described["restored_in_part"] == in_part
    assert not described["untrained"]
    assert not {*in_part} & {*described["restored"], *described["fresh"]}
    assert "2 tables of ids restored for items known by nothing else, " in capsys.readouterr().out
    before = trained_models.load_pretrainer(tmp_path / "stage1").model
    after = trained_models.load_scorer(run_dir).scorer
    for domain, items in after.items.items():
        assert np.abs(items.ids - before.items[domain].ids).max() > 0
        np.testing.assert_array_equal(
            items.projection.kernel, before.items[domain].projection.kernel
        )
