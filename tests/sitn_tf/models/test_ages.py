"""Ages of clicks in both stages of the models that encode histories: `encoder.ages`."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation.instances import item_instances
from sitn_tf.models.registry import PRETRAINERS, make_pretrainer, make_scorer
from sitn_tf.training import stage1, stage2
from sitn_tf.training.stage import Stage
from tests.sitn_tf.models.apart import encode_and_score
from tests.sitn_tf.models.made import made
from tests.small_dataset import TARGET_ITEMS, write_small_dataset

AGES = "encoder.ages=true"
TIMES = [feature.name for feature in schema.TIMES_OF_DOMAIN.values()]
SHIFT = 10**8
MADE = {schema.STAGE1: make_pretrainer, schema.STAGE2: make_scorer}


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("timed"), click_times=True)


def _made(make, data_dir, *changes):
    """With curves that say something: they start at zero."""
    model = made(make, data_dir, AGES, *changes)
    rng = np.random.default_rng(4)
    for encoder in model.sequences.values():
        encoder.ages.assign(rng.normal(size=encoder.ages.shape))
    return model


def _batch(data_dir, stage, **changes):
    """Twelve records whose clicks are days apart."""
    batch = next(iter(data.read_split(data_dir, stage, schema.TRAIN, 12)))
    for name in (*TIMES, *({"request_time"} & batch.keys())):
        batch[name] = tf.where(batch[name] > 0, 1_000 * batch[name], 0)
    return batch | changes


def _outputs(model, batch):
    return [tensor.numpy() for tensor in tf.nest.flatten(model(batch))]


@pytest.mark.parametrize("stage", MADE)
@pytest.mark.parametrize("name", PRETRAINERS)
def test_only_how_long_before_counts(timed, stage, name):
    model, batch = _made(MADE[stage], timed, f"model.name={name}"), _batch(timed, stage)
    shown = _outputs(model, batch)
    shifted = {n: batch[n] + SHIFT for n in (*TIMES, *({"request_time"} & batch.keys()))}
    for before, after in zip(shown, _outputs(model, batch | shifted), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    older = {n: tf.maximum(batch[n] - SHIFT // 200, 1) for n in TIMES}
    changed = _outputs(model, batch | older)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(shown, changed, strict=True))
    if stage == schema.STAGE2:
        (later,) = _outputs(model, batch | {"request_time": batch["request_time"] + SHIFT})
        assert np.abs(later - shown[0]).max() > 1e-3
    else:  # each domain by itself: when a user was active is not told
        alone = _outputs(model, batch | {TIMES[0]: batch[TIMES[0]] + SHIFT})
        for before, after in zip(shown, alone, strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", MADE)
def test_padding_has_no_effect(timed, stage):
    model, batch = _made(MADE[stage], timed), _batch(timed, stage)
    ids = [feature.name for feature in schema.HISTORY_OF_DOMAIN.values()]
    wider = {n: tf.pad(batch[n], [[0, 0], [0, 3]]) for n in ids}
    # whatever stands where there is no click
    wider |= {
        n: tf.where(wider[i] != 0, tf.pad(batch[n], [[0, 0], [0, 3]]), 77)
        for n, i in zip(TIMES, ids, strict=True)
    }
    for before, after in zip(_outputs(model, batch), _outputs(model, batch | wider), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", MADE)
def test_a_batch_in_parts_gives_the_same(timed, stage):
    model, batch = _made(MADE[stage], timed), _batch(timed, stage)
    parts = [{n: value[rows] for n, value in batch.items()} for rows in (slice(7), slice(7, 12))]
    for whole, *of_parts in zip(
        _outputs(model, batch), *(_outputs(model, p) for p in parts), strict=True
    ):
        np.testing.assert_allclose(np.concatenate(of_parts), whole, rtol=1e-4, atol=1e-5)


def test_gradients_of_stage_2_reach_the_curves(timed):
    scorer = _made(make_scorer, timed)
    curves = [encoder.ages for encoder in scorer.sequences.values()]
    with tf.GradientTape() as tape:
        loss = stage2.scorer_losses(scorer, _batch(timed, schema.STAGE2))["loss"]
    for gradient in tape.gradient(loss, curves):
        assert np.abs(gradient).max() > 0


def test_gradients_of_stage_1_reach_the_curves_whatever_the_parts_of_the_batch(timed):
    batch, step = _batch(timed, schema.STAGE1), tf.constant(3, tf.int64)
    changes = ("items.id_dropout=0", "stage1.item_crop=0.2", "stage1.item_shuffle=0.5")
    model = _made(make_pretrainer, timed, "stage1.micro_batches=3", *changes)
    curves = [encoder.ages for encoder in model.sequences.values()]
    losses, gradients = stage1.micro_batch_gradients(model, batch, step, curves)
    with tf.GradientTape() as tape:
        whole = model.loss(batch, step)["loss"]
    np.testing.assert_allclose(losses["loss"], whole, rtol=1e-5)
    for ours, expected in zip(gradients, tape.gradient(whole, curves), strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6)


def test_stage_1_takes_ages_from_the_newest_click_that_is_left(timed):
    model = _made(make_pretrainer, timed)
    batch = _batch(timed, schema.STAGE1)
    # the newest is hidden; its time, far later, must not count
    history = batch["target_history"].numpy()
    times = batch["target_times"].numpy()
    last = (history != 0).sum(axis=1) - 1
    history[np.arange(12), last] = 0
    late = times.copy()
    late[np.arange(12), last] += SHIFT
    hidden = batch | {"target_history": tf.constant(history)}
    np.testing.assert_array_equal(
        model(hidden | {"target_times": tf.constant(late)})[1], model(hidden)[1]
    )


def test_an_item_alone_is_its_own_newest_click(timed):
    model = _made(make_pretrainer, timed)
    shown = item_instances(model, schema.TARGET, TARGET_ITEMS)
    curve = model.sequences[schema.TARGET].ages
    curve.assign(tf.concat([curve[:1], curve[1:] + 5.0], axis=0))
    np.testing.assert_array_equal(item_instances(model, schema.TARGET, TARGET_ITEMS), shown)
    curve.assign(curve + 5.0)
    assert np.abs(item_instances(model, schema.TARGET, TARGET_ITEMS) - shown).max() > 1e-3


@pytest.mark.parametrize("use_source", ["true", "false"])
def test_a_scorer_reads_times_of_the_histories_that_it_sees(timed, use_source):
    scorer = _made(make_scorer, timed, f"model.use_source={use_source}")
    seen = ["source_times"] if use_source == "true" else []
    assert [f.name for f in scorer.click_inputs] == [*seen, "target_times"]
    assert [f.name for f in scorer.request_inputs] == ["request_time"]
    assert {*scorer.click_inputs, *scorer.request_inputs} <= {*scorer.reads}
    batch = _batch(timed, schema.STAGE2)
    read = {feature.name: batch[feature.name] for feature in scorer.reads}
    np.testing.assert_allclose(
        scorer(batch), scorer.popularity(encode_and_score(scorer, read), batch["candidates"])
    )
    hourly = _made(make_scorer, timed, "model.request_features=hour")
    assert [f.name for f in hourly.request_inputs] == ["request_time"]


def test_a_data_set_without_times_is_refused_with_the_remedy(small, timed):
    chosen = config.override(config.tiny(), [AGES])
    for stage in MADE:
        with pytest.raises(InputError, match=r"encoder\.ages=true needs the times of clicks, .*sm"):
            Stage(stage, chosen, small)
        assert Stage(stage, chosen, timed).manifest.click_times
    with pytest.raises(InputError) as refused:
        Stage(schema.STAGE2, chosen, small)
    assert "pipelines.build_dataset --click_times" in refused.value.remedy


def test_a_model_without_sequence_encoders_names_the_setting():
    with pytest.raises(InputError, match=r"encoder\.ages=True: model\.name=din has no section enc"):
        config.override(config.tiny(), ["model.name=din", AGES])
