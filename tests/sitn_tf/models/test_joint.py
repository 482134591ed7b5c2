"""What holds for every model that learns from requests of both domains."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import data, schema
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.models.registry import SCORERS
from sitn_tf.training import stage2
from tests.click_step import train_by_heart
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches
from tests.sitn_tf.models.joint import both, gradients, make, settings_of, source_click

MODELS = [f"model.name={name}" for name, scorer in SCORERS.items() if scorer.learns_source]
VARIANTS = [
    *([model] for model in MODELS),
    ["model.name=conet", "conet.l1=0.1"],
    ["model.name=minet", "model.request_features=user"],
    ["model.name=minet", "model.request_features=user", "minet.source_interest=false"],
]


@pytest.fixture(params=VARIANTS, ids=" ".join)
def settings(request):
    return request.param


def test_every_weight_has_a_gradient(small, settings):
    scorer, (batch, source) = make(small, *settings), both(small)
    of_both = gradients(scorer, lambda: stage2.scorer_losses(scorer, batch)["loss"])
    names = [variable.name for variable in scorer.trainable_variables]
    assert not [name for name, size in zip(names, of_both, strict=True) if size == 0]
    of_source = gradients(scorer, lambda: source_click(scorer, source))
    reached = {name for name, size in zip(names, of_source, strict=True) if size > 0}
    assert "source_items/ids:0" in reached


def test_padding_changes_no_loss_of_training(small, settings):
    scorer, (batch, _) = make(small, *settings), both(small)
    wide = {"source_history": 3, "target_history": 2, "labels": 4}
    wide |= {f"source_requests/{name}": n + 1 for name, n in wide.items()}
    wide |= {"candidates": 4, "source_requests/source_candidates": 5}
    assert batch.keys() >= wide.keys()
    padded = {
        name: tf.pad(values, [[0, 0], [0, wide[name]]]) if name in wide else values
        for name, values in batch.items()
    }
    ours, theirs = (stage2.scorer_losses(scorer, some) for some in (padded, batch))
    assert list(ours)[:3] == ["loss", "click", "source_click"]
    for name, loss in ours.items():
        np.testing.assert_allclose(loss, theirs[name], rtol=1e-5)


@pytest.mark.usefixtures("op_by_op")
def test_two_replicas_are_one_though_the_second_has_no_rows(small, two_cpus, settings):
    stages = (schema.STAGE2, schema.SOURCE_REQUESTS)
    batch = data.with_source_requests(*(read_batches(small, stage)[0] for stage in stages))
    one, two = (
        Trial(small, schema.STAGE2, cpu_strategy(two_cpus[:n]), settings_of(*settings))
        for n in (1, 2)
    )
    expected = one.loss_and_gradients(batch, (ROWS,))
    assert_same(two.loss_and_gradients(batch, (ROWS, 0)), expected)


def _told_by_the_source_history(rows):
    """Requests of both domains that differ by the source history, and so do their clicks."""
    first = np.arange(rows) % 2 == 0
    asked = {
        "source_history": tf.constant(np.where(first, 6, 7)[:, None], tf.int64),
        "target_history": tf.constant([[2]] * rows, tf.int64),
        "labels": tf.constant(np.stack([first, ~first], axis=1), tf.int64),
        "user_id": tf.constant([b""] * rows),
    }
    target = asked | {"candidates": tf.constant([[4, 5]] * rows, tf.int64)}
    return target, asked | {"source_candidates": tf.constant([[8, 9]] * rows, tf.int64)}


def train_on_the_rule(scorer):
    """Trains a scorer on what the source history tells; returns the requests of each domain."""
    target, source = _told_by_the_source_history(16)
    batch = data.with_source_requests(target, source)
    train_by_heart(scorer, batch)
    return {schema.TARGET: target, schema.SOURCE: source}


@pytest.mark.parametrize(
    "settings",
    [
        *([model] for model in MODELS),
        pytest.param(VARIANTS[-3], marks=pytest.mark.slow),
        pytest.param(VARIANTS[-2], marks=pytest.mark.slow),
        VARIANTS[-1],
    ],
    ids=" ".join,
)
def test_clicks_that_the_source_history_tells_are_learned(small, settings):
    scorer = make(small, *settings)
    for domain, inputs in train_on_the_rule(scorer).items():
        logits = scorer(inputs, domain=domain).numpy()
        right = np.where(inputs["labels"][:, 0], 1, -1) * (logits[:, 0] - logits[:, 1])
        if domain == schema.SOURCE and "minet.source_interest=false" in settings:
            # The paper's source task sees the candidate and the user alone.
            np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5)
        else:
            assert (right > 1).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_source_is_not_to_be_left_out(model):
    with pytest.raises(InputError, match=r"model\.use_source=False: model\.name=\w+ learns"):
        settings_of(model, "model.use_source=false")
