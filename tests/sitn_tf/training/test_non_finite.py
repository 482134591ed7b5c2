"""The story of a number that is not finite: which step, whose records, where first."""

import functools
import math
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import config, runs
from sitn_tf.errors import InputError
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.training import non_finite, stage2, steps, train_loop
from tests.small_dataset import write_small_dataset


class _Model(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.first = tf_keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
        self.blocks = [tf_keras.layers.Lambda(tf.math.log), tf_keras.layers.Lambda(tf.sqrt)]

    def call(self, inputs):
        hidden = self.first(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def _first(inputs, losses=None):
    model = _Model()
    model(tf.ones([1, 2]))
    losses = losses or (lambda: {"loss": tf.reduce_sum(model(inputs))})
    return non_finite.first_not_finite(model, model.trainable_variables, losses), model


def test_the_first_layer_is_named_by_its_place():
    # log(2) is fine, log(0) is -inf and its root nan: the first is blocks.0.
    assert _first(tf.zeros([1, 2]))[0] == "the output of the layer blocks.0"
    assert _first(tf.ones([1, 2]) / 4)[0] == "the output of the layer blocks.1"


def test_the_watch_leaves_no_trace():
    _, model = _first(tf.zeros([1, 2]))
    assert "call" not in vars(model.first)
    assert np.isneginf(model.blocks[0](tf.zeros([1])))


def test_gradients_parts_and_weights_are_named():
    # log(2 * 1/2) = 0, and the root has no finite slope at 0.
    assert _first(tf.ones([1, 2]) / 2)[0].startswith("the gradient of ")
    first, _ = _first(None, lambda: {"loss": tf.constant(0.0), "i2c": tf.constant(np.nan)})
    assert first == "i2c, though the output of every layer is finite"
    _, model = _first(tf.ones([1, 2]))
    model.first.kernel.assign([[np.nan, 1], [1, 1]])
    first = non_finite.first_not_finite(model, model.trainable_variables, dict)
    assert first == f"the weights {model.first.kernel.name}, before the step"


def test_a_gradient_is_named_that_overflows_float16_by_the_scale_of_the_loss():
    """100 is a float16, 1024 * 100 is above the greatest one, 65504."""
    model = _Model()
    model(tf.ones([1, 2]))

    def losses():
        halves = tf.cast(model.first.kernel, tf.float16)
        return {"loss": tf.cast(tf.reduce_sum(halves * 100.0), tf.float32)}

    def first(*scale):
        return non_finite.first_not_finite(model, model.trainable_variables, losses, *scale)

    assert first() == "nothing when the batch is run again alone"
    named = f"the gradient of {model.first.kernel.name}, of the loss times 1024"
    assert first(1024.0) == named


def _poisoned(kind):
    """Losses of stage 2, harmful where user 7 is in the batch."""
    original = stage2.scorer_losses

    def poisoned(scorer, batch, *_):
        loss = original(scorer, batch)["loss"]
        there = tf.reduce_any(batch["user_id"] == b"u7")
        if kind == "loss":
            return {"loss": loss + tf.where(there, np.nan, 0.0)}
        kernel = scorer.mlp.trainable_variables[0]
        if kind == "float16":
            halves = tf.cast(kernel, tf.float16) * tf.where(there, tf.constant(100.0, "half"), 0)
            return {"loss": loss + tf.cast(tf.reduce_sum(halves), tf.float32)}
        zero = tf.reduce_sum(tf.where(there, kernel * 0.0, tf.ones_like(kernel)))
        return {"loss": loss + 1e-9 * tf.sqrt(zero)}

    return poisoned


@pytest.mark.usefixtures("op_by_op")
@pytest.mark.parametrize(
    "kind", ["loss", "gradient", pytest.param("float16", marks=pytest.mark.slow)]
)
def test_training_stops_with_step_records_and_layer(tmp_path, monkeypatch, kind):
    data_dir = write_small_dataset(tmp_path / "data")
    precision = "float16" if kind == "float16" else "float32"
    settings = ["stage2.batch_size=16", f"model.precision={precision}"]
    settings = config.override(config.tiny(), settings)
    monkeypatch.setattr(stage2, "scorer_losses", _poisoned(kind))
    with pytest.raises(InputError) as error:
        stage2.run_stage2(
            settings,
            data_dir,
            tmp_path / "stage2",
            tf.distribute.get_strategy(),
            "none",
            train_loop.Loop(checkpoint_steps=2),
        )
    message = str(error.value)
    saved = np.load(tmp_path / "stage2" / runs.NOT_FINITE_BATCH)
    users = saved["user_id"].tolist()
    assert b"u7" in users
    assert saved["candidates"].shape[0] == len(users) <= 16
    assert " of epoch 1, whose records are saved in " in message
    assert not re.search(r"\bu\d+\b", message), "no user ids in messages"
    assert "(stage2.learning_rate=...)" in message
    assert ("(stage2.clip_norm=1)" in message) == (kind != "float16")
    assert ("give model.precision=bfloat16, which" in message) == (kind == "float16")
    if kind == "loss":
        assert message.startswith("the loss is nan and the norm of its gradient ")
        assert "first that is not finite is loss, though the output of every" in message
    else:
        assert re.search("and the norm of its gradient (nan|inf)", message)
        assert "first that is not finite is the gradient of " in message
    assert not (tmp_path / "stage2" / runs.METRICS_FILE).exists()


class _SlowWorker(steps.Here):
    """Of two workers one takes its first step after the other has met user 7."""

    at_once = 2

    def __init__(self, strategy, step):
        super().__init__(strategy, step)
        self.slow = None

    def __call__(self, batch):
        harmful = b"u7" in batch["user_id"].numpy()
        if self.slow is None and not harmful:
            self.slow = functools.cache(lambda: super(_SlowWorker, self).__call__(batch)())
            return self.slow
        values = super().__call__(batch)
        if harmful:
            values()
            self.slow()
        return values


class _Collision(steps.Here):
    """The third step is spoilt by another one, which is no batch's fault."""

    at_once = 2

    def __init__(self, strategy, step):
        super().__init__(strategy, step)
        self.taken = 0

    def __call__(self, batch):
        self.taken += 1
        values = super().__call__(batch)
        return (lambda: values() | {"loss": math.nan}) if self.taken == 3 else values


@pytest.mark.usefixtures("op_by_op")
@pytest.mark.parametrize("workers", [_SlowWorker, _Collision])
def test_a_batch_is_blamed_only_for_what_it_does_alone(tmp_path, monkeypatch, workers):
    """Where workers take steps side by side, the first loss that is not finite may be another's."""
    data_dir = write_small_dataset(tmp_path / "data")
    settings = config.override(config.tiny(), ["model.name=mean_pool", "stage2.batch_size=16"])
    if workers is _SlowWorker:
        monkeypatch.setattr(stage2, "scorer_losses", _poisoned("gradient"))
    monkeypatch.setattr(train_loop, "runner", workers)
    with pytest.raises(InputError) as error:
        stage2.run_stage2(
            settings, data_dir, tmp_path / "stage2", tf.distribute.get_strategy(), "none"
        )
    path = tmp_path / "stage2" / runs.NOT_FINITE_BATCH
    if workers is _SlowWorker:
        assert b"u7" in np.load(path)["user_id"].tolist()
        assert "first that is not finite is the gradient of " in str(error.value)
        return
    # All of the split's 8 batches had begun.
    assert (
        "at about step 3 of epoch 1, while 2 workers took steps side by side; one after the other, "
        "from the last checkpoint up to step 8, all are finite"
    ) in str(error.value)
    assert "or train with one worker" in str(error.value)
    assert not path.exists()


def test_weights_that_the_last_step_of_an_epoch_spoilt_have_no_auc():
    clicks, none = np.array([1, 0, 1, 0]), np.zeros(2, np.int64)
    scored = Predictions(
        request=np.array([0, 0, 1, 1]),
        candidate=np.array([3, 4, 5, 6]),
        label=clicks,
        logged_score=None,
        logit=np.array([0.5, -0.5, np.inf, -0.5], np.float32),
        user=none,
        source_length=none,
        target_length=none,
    )
    assert stage2.measured(scored)["auc"] == 1.0
    scored.logit[3] = np.nan
    with pytest.raises(InputError, match=r"1 of 4 validation logits are not a number.*lower the"):
        stage2.measured(scored)
