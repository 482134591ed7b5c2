"""What a model may override, seen from training."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema, trained_models
from sitn_tf.distributed.replicas import cpu_strategy, split_rows
from sitn_tf.errors import InputError
from sitn_tf.models.registry import PRETRAINERS, SCORERS, make_pretrainer, make_scorer
from sitn_tf.training import stage1, stage2
from tests.sitn_tf.models import widened
from tests.sitn_tf.models.apart import encode_and_score
from tests.small_dataset import MAX_HISTORY, write_small_dataset

pytestmark = pytest.mark.usefixtures("module_op_by_op")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    widened.register(monkeypatch)


def _scorer(small, *settings):
    chosen = config.override(config.tiny(), settings)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(2)
    return make_scorer(chosen, tables, MAX_HISTORY)


def _batch(small):
    return next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 12)))


def test_every_model_has_sections_and_a_stage_1_trains_encoders():
    assert SCORERS.keys() == config.SECTIONS.keys()
    assert PRETRAINERS.keys() == {name for name in SCORERS if config.has_stage1(name)}
    learns_source = {name for name, scorer in SCORERS.items() if scorer.learns_source}
    assert learns_source == {name for name in SCORERS if "joint" in config.sections_of(name)}


@pytest.mark.parametrize("name", PRETRAINERS)
def test_what_is_handed_over_is_there_on_both_sides(small, name):
    chosen = config.override(config.tiny(), [f"model.name={name}"])
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    pretrainer = make_pretrainer(chosen, tables, MAX_HISTORY)
    for part in pretrainer.hands_over:
        assert set(getattr(pretrainer, part)) == set(schema.DOMAINS)
    assert SCORERS[name].takes_over == tuple(pretrainer.hands_over)


def test_a_widened_item_and_another_encoder_are_what_is_scored(small):
    scorer, batch = _scorer(small, "model.name=widened"), _batch(small)
    apart = encode_and_score(scorer, batch)
    assert scorer.item_vectors(schema.TARGET, tf.constant([0, 3], tf.int64)).shape == (2, 9)
    np.testing.assert_allclose(scorer(batch), apart, rtol=1e-5, atol=1e-6)


def test_auxiliary_losses_are_added_and_shown(small, two_cpus):
    scorer, batch = _scorer(small, "model.name=widened"), _batch(small)
    losses = stage2.scorer_losses(scorer, batch)
    assert list(losses) == ["loss", "click", "square"]
    click = stage2.mean_click_loss(scorer(batch), batch)
    history = scorer.item_vectors(schema.SOURCE, tf.reshape(batch["source_history"], [-1]))
    sums = tf.reduce_sum(tf.reshape(history, [12, -1, 9]), axis=1)
    square = 0.5 * np.mean(np.square(sums))
    np.testing.assert_allclose(losses["click"], click, rtol=1e-5)
    np.testing.assert_allclose(losses["square"], square, rtol=1e-5)
    np.testing.assert_allclose(losses["loss"], click + square, rtol=1e-5)
    assert list(stage2.scorer_losses(_scorer(small), batch)) == ["loss"]

    strategy = cpu_strategy(two_cpus)
    with strategy.scope():
        mirrored = _scorer(small, "model.name=widened")
    parts = strategy.run(
        tf.function(lambda part: stage2.scorer_losses(mirrored, part)),
        args=(split_rows(strategy, batch, (7, 5)),),
    )
    for name, whole in losses.items():
        summed = strategy.reduce("SUM", parts[name], axis=None)
        np.testing.assert_allclose(summed, whole, rtol=1e-5)


def test_a_model_without_encoder_starts_from_the_items_of_another_stage_1(
    small, tmp_path, two_cpus
):
    strategy = cpu_strategy(two_cpus[:1])
    sitn = config.override(config.tiny(), ["stage1.epochs=1"])
    stage1.run_stage1(sitn, small, tmp_path / "stage1", strategy)
    scorer = _scorer(small, "model.name=widened")
    restored = stage2.restore_encoders(scorer, str(tmp_path / "stage1"))
    assert {v.name.partition("/")[0] for v in restored.learned} == {
        "source_items",
        "target_items",
        "shared_items",
    }
    other = config.override(
        config.tiny(), ["model.name=widened", "stage2.epochs=1", "stage2.encoders=freeze"]
    )
    stage2.run_stage2(other, small, tmp_path / "stage2", strategy, str(tmp_path / "stage1"))
    history = runs.read_json(tmp_path / "stage2" / runs.HISTORY_FILE, [])
    assert {"loss", "click", "square"} <= history[-1].keys()
    items = trained_models.load_scorer(tmp_path / "stage2").scorer.items[schema.SOURCE]
    np.testing.assert_array_equal(items.ids, scorer.items[schema.SOURCE].ids)
    narrower = config.override(other, ["items.title_words=3"])
    with pytest.raises(InputError, match=r"other encoders .*items\.title_words: 12, 3"):
        stage2.check_fits(tmp_path / "stage1", narrower, schema.read_manifest(small))
    blocks = config.override(config.tiny(), ["encoder.blocks=2"])
    with pytest.raises(InputError, match=r"other encoders .*encoder\.blocks: 1, 2"):
        stage2.check_fits(tmp_path / "stage1", blocks, schema.read_manifest(small))


def test_a_model_without_a_stage_1_says_so(small, tmp_path, two_cpus):
    din = config.override(config.tiny(), ["model.name=din"])
    with pytest.raises(InputError, match=r"model\.name=din has no stage 1; these have: sitn"):
        stage1.run_stage1(din, small, tmp_path / "stage1", cpu_strategy(two_cpus[:1]))
    assert not (tmp_path / "stage1").exists()
