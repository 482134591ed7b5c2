"""The gate on the source's representation, and all of SITN's options together, to an export."""

import numpy as np
import pytest
import tensorflow as tf

from export import native, requests
from export.exporting import export
from export.options import ExportOptions
from sitn_tf import config, data, runs, schema, trained_models
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics
from sitn_tf.evaluation.predictions import predict
from sitn_tf.models.registry import make_scorer
from sitn_tf.training import stage1, stage2
from tests.click_step import assert_every_weight_has_a_gradient
from tests.export.small_run import write_small_run
from tests.sitn_tf import reference
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches
from tests.small_dataset import MAX_HISTORY

pytestmark = pytest.mark.usefixtures("module_op_by_op")

GATE = "sitn.source_gate=true"
SELECTED_ALONE = "sitn.sequence_means=false"
TOGETHER = ("items.shared_side_features=true", "encoder.shared=true", GATE)


def _make(small, *changes):
    chosen = config.override(config.tiny(), [GATE, *changes])
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    return make_scorer(chosen, tables, MAX_HISTORY)


def _request():
    ids = {"source_history": [[4, 9, 3]], "target_history": [[5, 2]], "candidates": [[3, 7, 2]]}
    return {name: tf.constant(rows, tf.int64) for name, rows in ids.items()}


def test_the_source_counts_by_the_gate_of_each_candidate(small):
    scorer = _make(small, SELECTED_ALONE)
    kernel = scorer.gate.kernel
    assert kernel.shape == (24, 1)
    np.testing.assert_array_equal(scorer.gate.bias, [-2.0])
    kernel.assign(tf.random.stateless_normal(kernel.shape, [1, 2]))
    plain = _make(small, SELECTED_ALONE, "sitn.source_gate=false")
    for part in ("items", "sequences", "attentions"):
        for ours, theirs in zip(
            getattr(plain, part).values(), getattr(scorer, part).values(), strict=True
        ):
            ours.set_weights(theirs.get_weights())
    logits, gated, users = (parts.numpy()[0] for parts in _seen(scorer))
    _, source, target = (parts.numpy()[0] for parts in _seen(plain))
    layers = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in scorer.mlp.layers]
    for place, item in enumerate([3, 7, 2]):
        v = scorer.items[schema.TARGET](tf.constant([item], tf.int64)).numpy()[0]
        parts = np.concatenate([source[place], target[place], v])
        gate = 1 / (1 + np.exp(-(parts @ kernel.numpy()[:, 0] - 2.0)))
        of_source, of_target = gate * source[place], target[place]
        np.testing.assert_allclose(gated[place], of_source, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(users[place], of_target, rtol=1e-5, atol=1e-6)
        joined = np.concatenate([of_source, of_target, v, of_source * v, of_target * v])
        expected = reference.mlp(joined[None], layers)[0, 0]
        np.testing.assert_allclose(logits[place], expected, rtol=1e-4, atol=1e-5)


def _seen(scorer):
    """The logits of the request, and what its candidates see of either history."""
    kept, joined = [], scorer.joined
    scorer.joined = lambda users, *rest: kept.extend(users) or joined(users, *rest)
    logits = scorer(_request())
    del scorer.joined
    return logits, *kept


def test_without_the_source_there_is_no_gate(small):
    assert _make(small, "model.use_source=false").gate is None
    assert not config.paper().sitn.source_gate
    assert config.override(config.default(), ["model.name=semi"]).sitn == config.default().sitn


def test_every_weight_has_a_gradient(small):
    scorer = _make(small, *TOGETHER, "sitn.match=logit", "encoder.layer_norm=true")
    for number, weight in enumerate(scorer.trainable_variables):
        weight.assign_add(tf.random.stateless_normal(weight.shape, [number, 1], stddev=0.1))
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 64)))
    assert_every_weight_has_a_gradient(scorer, batch)


def test_two_replicas_are_one(small, two_cpus):
    chosen = config.override(config.tiny(), [*TOGETHER, "sitn.match=logit"])
    [batch] = read_batches(small, schema.STAGE2)[:1]
    outcomes = [
        Trial(small, schema.STAGE2, cpu_strategy(two_cpus[:devices]), chosen).loss_and_gradients(
            batch, split
        )
        for devices, split in ((1, (ROWS,)), (2, (7, 4)))
    ]
    assert_same(*outcomes)


def _shared(model):
    """What both domains share: the tables of title words and brands, five weights of encoders."""
    return [v for v in model.trainable_variables if "shared_" in v.name]


def test_both_stages_train_them_and_hand_over_once(small, tmp_path, two_cpus):
    changes = [*TOGETHER, "sitn.match=inputs", "model.dropout=0.1"]
    changes += ["stage2.contrast_weight=0.01", "stage2.contrast_decay_steps=2"]
    epochs = ["stage1.epochs=1", "stage2.epochs=2"]
    chosen = config.override(config.tiny(), [*changes, *epochs])
    strategy = cpu_strategy(two_cpus[:1])
    init = tmp_path / "stage1"
    stage1.run_stage1(chosen, small, init, strategy)
    scorer = _make(small, *TOGETHER)
    restored = stage2.restore_encoders(scorer, str(init))
    assert sum("shared_" in v.name for v in restored.learned) == len(_shared(scorer)) == 7
    pretrained = trained_models.load_pretrainer(init).model
    for ours, theirs in zip(_shared(scorer), _shared(pretrained), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    manifest = schema.read_manifest(small)
    for name in ("items.shared_side_features", "encoder.shared"):
        other = config.override(chosen, [f"{name}=false"])
        with pytest.raises(InputError, match=rf"other encoders .*{name}: True, False"):
            stage2.check_fits(init, other, manifest)
    stage2.run_stage2(chosen, small, tmp_path / "stage2", strategy, str(init))
    run = trained_models.load_scorer(tmp_path / "stage2")
    scored = predict(run.scorer, data.read_split(small, schema.STAGE2, schema.VALIDATION, 16))
    found = metrics.click_metrics(scored.label, scored.probability, scored.request)
    assert found["auc"] == pytest.approx(run.metrics["validation"]["auc"], abs=1e-6)
    # An epoch is two steps, so in the second nothing is left of the contrast.
    first, second = runs.read_json(tmp_path / "stage2" / runs.HISTORY_FILE, None)
    assert first["steps"] == 2
    assert first["i2i"] > second["i2i"] == 0.0
    [_, judged] = runs.read_json(init / runs.HISTORY_FILE, None)
    assert judged["apart"] > 0.0
    assert "clusters_8/clusters_apart" in judged


def test_they_are_served_as_they_were_trained(tmp_path):
    run_dir = write_small_run(tmp_path, *TOGETHER, "sitn.match=inputs", measured=False)
    made, _ = export(run_dir, tmp_path / "servable", ExportOptions(goldens=16))
    scorer = trained_models.load_scorer(run_dir).scorer
    asked = [
        requests.Request(("s4", "s9", "s3"), ("t5", "t2"), ("t3", "t7", "t2")),
        requests.Request((), ("t4",), ("t2", "t6", "t5")),
    ]
    ids = {
        "source_history": [[4, 9, 3], [0, 0, 0]],
        "target_history": [[5, 2], [4, 0]],
        "candidates": [[3, 7, 2], [2, 6, 5]],
    }
    expected = scorer({name: tf.constant(rows, tf.int64) for name, rows in ids.items()}).numpy()
    with native.Session(made) as session:
        whole = session.run("score", requests.score_inputs(asked))
        user = session.run("encode_user", requests.user_inputs(asked))
        shown = requests.candidate_inputs([request.candidates for request in asked])
        apart = session.run("score_encoded", {**user, **shown})
    assert user["target_instance"].shape == (2, 8)
    np.testing.assert_allclose(whole["logit"], expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(apart["logit"], expected, rtol=1e-5, atol=2e-6)
