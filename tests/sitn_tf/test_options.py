"""Options of both stages, each seen to do what it says."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema, trained_models
from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.layers.encoder import instance
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam, RowWiseAdagrad
from sitn_tf.training import stage1, stage2
from tests.sitn_tf import reference
from tests.small_dataset import MAX_HISTORY

pytestmark = pytest.mark.usefixtures("module_op_by_op")


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory, two_cpus):
    run_dir = tmp_path_factory.mktemp("run") / "stage1"
    chosen = config.override(config.tiny(), ["stage1.epochs=1"])
    stage1.run_stage1(chosen, small, run_dir, cpu_strategy(two_cpus[:1]))
    return run_dir


def _tables(small, chosen):
    return runs.read_tables(small, schema.read_manifest(small), chosen)


def _train(small, pretrained, folder, two_cpus, *changes):
    """Weights of a scorer before and after an epoch of stage 2, restored ones and fresh ones."""
    chosen = config.override(config.tiny(), ["stage2.epochs=1", *changes])
    stage2.run_stage2(chosen, small, folder / "stage2", cpu_strategy(two_cpus[:1]), str(pretrained))
    after = trained_models.load_scorer(folder / "stage2").scorer
    before = make_scorer(chosen, _tables(small, chosen), MAX_HISTORY)
    stage2.restore_encoders(before, str(pretrained))
    moved = {
        kind: sum(
            float(tf.reduce_sum(tf.abs(a - b)))
            for a, b in zip(*map(pick, (before, after)), strict=True)
        )
        for kind, pick in {
            "encoders": lambda s: stage2.handed_over_variables(s, chosen).learned,
            "target": lambda s: s.items["target"].trainable_variables,
        }.items()
    }
    return moved


def test_encoders_freeze_or_go_slower(small, pretrained, tmp_path, two_cpus):
    moved = {
        name: _train(small, pretrained, tmp_path / name, two_cpus, *change)["encoders"]
        for name, change in {
            "freeze": ["stage2.encoders=freeze"],
            "slow": ["stage2.encoder_rate=0.1"],
            "plain": [],
        }.items()
    }
    assert moved["freeze"] == 0.0
    # Adam moves by the rate, whatever the gradient: two steps of a tenth.
    assert moved["slow"] == pytest.approx(0.1 * moved["plain"], rel=0.2)
    assert moved["plain"] > 0.0


@pytest.mark.parametrize("make", [RowSparseAdam, RowWiseAdagrad])
def test_a_share_of_the_rate_is_a_share_of_the_step(make):
    moved = {}
    for share in (1.0, 0.25):
        dense = tf.Variable([[1.0, 2.0]])
        table = tables.mark(tf.Variable(tf.ones([3, 2])), slots="by_element")
        optimizer = make(learning_rate=0.1)
        optimizer.build([dense, table])
        optimizer.slow_down([dense, table], share)
        sparse = tf.IndexedSlices(tf.constant([[0.5, -0.5]]), tf.constant([1]), tf.constant([3, 2]))
        optimizer.apply_gradients([(tf.constant([[0.3, -0.2]]), dense), (sparse, table)])
        moved[share] = np.concatenate([(dense - [[1.0, 2.0]]).numpy(), (table - 1.0).numpy()])
    np.testing.assert_allclose(moved[0.25], 0.25 * moved[1.0], rtol=1e-4, atol=1e-7)
    assert np.abs(moved[1.0]).sum() > 0.1


def test_the_contrast_kept_in_stage_2_is_equations_3_and_4(small):
    chosen = config.tiny()
    scorer = make_scorer(chosen, _tables(small, chosen), MAX_HISTORY)
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 12)))
    assert len(np.unique(batch["user_id"].numpy())) == 12, "the reference knows no equal users"
    scorer.contrast_weight = 0.5
    losses = stage2.scorer_losses(scorer, batch)
    p_s, p_t = (
        instance(scorer.items[d], scorer.sequences[d], batch[f.name], unit=True).numpy()
        for d, f in schema.HISTORY_OF_DOMAIN.items()
    )
    tau = chosen.contrast.temperature
    rows = reference.i2i(p_s, p_t, tau) + reference.i2i(p_t, p_s, tau)
    assert float(losses["i2i"]) == pytest.approx(0.5 * rows.mean(), rel=1e-4)
    fallen = stage2.scorer_losses(scorer, batch, contrast_left=0.25)
    assert float(fallen["i2i"]) == pytest.approx(0.25 * float(losses["i2i"]), rel=1e-6)
    for parts in (losses, fallen):
        assert float(parts["loss"]) == pytest.approx(float(parts["click"] + parts["i2i"]), rel=1e-6)


def test_a_contrast_in_stage_2_needs_the_source(small, tmp_path):
    chosen = config.override(
        config.tiny(), ["stage2.contrast_weight=0.1", "model.use_source=false"]
    )
    with pytest.raises(InputError, match=r"stage2.contrast_weight=0\.1 needs both histories"):
        stage2.run_stage2(chosen, small, tmp_path, cpu_strategy(["CPU:0"]), "none")


def test_the_contrast_is_kept_where_stage_2_starts_from_it():
    chosen = config.default()
    assert stage2.kept_contrast(chosen, "run/stage1") == 0.01
    assert stage2.kept_contrast(chosen, "none") == 0.0
    for setting in ("model.use_source=false", "model.name=din"):
        other = config.override(chosen, [setting])
        assert stage2.kept_contrast(other, "run/stage1") == 0.0
    given = config.override(chosen, ["stage2.contrast_weight=0.5"])
    assert [stage2.kept_contrast(given, start) for start in ("run/stage1", "none")] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("steps", "left"), [(0, [1.0, 1.0, 1.0, 1.0, 1.0]), (4, [1.0, 0.75, 0.5, 0.0, 0.0])]
)
def test_what_is_left_of_the_contrast_by_step(steps, left):
    chosen = config.override(config.default(), [f"stage2.contrast_decay_steps={steps}"])
    at = tf.constant([0, 1, 2, 4, 9], tf.int64)
    np.testing.assert_allclose(stage2.left_of_contrast(chosen, at), left)


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 2), (5, 3), (9, 4)])
def test_no_stop_before_the_first_steps(small, tmp_path, monkeypatch, min_steps, epochs):
    """AUC falls from the first epoch on, and an epoch is two steps."""
    falling = iter([0.6, 0.5, 0.4, 0.3])
    monkeypatch.setattr(stage2.metrics, "click_metrics", lambda *_: {"auc": next(falling)})
    settings = ["model.name=fm", "stage2.patience=1", "stage2.epochs=4"]
    chosen = config.override(config.tiny(), [*settings, f"stage2.min_steps={min_steps}"])
    best = stage2.run_stage2(chosen, small, tmp_path, cpu_strategy(["CPU:0"]), "none")
    assert best["epoch"] == 1
    history = runs.read_json(tmp_path / runs.HISTORY_FILE, [])
    assert [entry["epoch"] for entry in history] == list(range(1, epochs + 1))
    assert {entry["steps"] for entry in history} == {2}


def _manifest(small, **negatives):
    return dataclasses.replace(schema.read_manifest(small), negatives=negatives)


def test_log_q_golden(small):
    table = _tables(small, config.tiny())[schema.TARGET]
    table = type(table)(
        domain=table.domain,
        ids=table.ids[:5],
        titles=table.titles[:5],
        count=np.array([0, 0, 16, 4, 0]),
        features={},
        vocabulary_sizes={},
    )
    # Square roots 4, 2 and 0 of 6: q is 2/3, 1/3 and, never drawn, that of the rarest.
    log_q = stage2.sampling_log_probability(
        _manifest(small, kind="sampled", power=0.5, per_click=3), table
    )
    np.testing.assert_allclose(log_q[2:], np.log([3 * 2 / 3, 3 / 3, 3 / 3]), rtol=1e-6)
    impressions = _manifest(small, kind="impressions")
    with pytest.raises(InputError, match="negatives of this data set are impressions, not sampled"):
        stage2.sampling_log_probability(impressions, table)


def test_log_q_is_taken_from_the_logits_in_training(small):
    chosen = config.tiny()
    scorer = make_scorer(chosen, _tables(small, chosen), MAX_HISTORY)
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 12)))
    log_q = np.linspace(-3.0, 1.0, scorer.items[schema.TARGET].table.size)
    candidates, labels = batch["candidates"].numpy(), batch["labels"].numpy()
    logits = scorer(batch).numpy() - log_q[candidates]
    expected = [
        reference.cross_entropy(y, 1 / (1 + np.exp(-x)))
        for y, x, item in zip(labels.flat, logits.flat, candidates.flat, strict=True)
        if item
    ]
    loss = stage2.scorer_losses(scorer, batch, tf.constant(log_q, tf.float32))["loss"]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4)


def test_i2c_joins_after_its_steps(small):
    batch = next(iter(data.read_split(small, schema.STAGE1, schema.TRAIN, 8)))
    chosen = config.override(config.tiny(), ["stage1.i2c_after=3"])
    model = make_pretrainer(chosen, _tables(small, chosen), MAX_HISTORY)
    for step, joined in ((2, 0.0), (3, 1.0)):
        loss = model.loss(batch, tf.constant(step, tf.int64))
        expected = float(loss["i2i"] + joined * loss["i2c"])
        assert float(loss["loss"]) == pytest.approx(expected, rel=1e-6)


def test_domains_may_start_from_the_same_clusters(small):
    for start, same in (("shared", True), ("orthogonal", False)):
        chosen = config.override(config.tiny(), [f"contrast.cluster_init={start}"])
        model = make_pretrainer(chosen, _tables(small, chosen), MAX_HISTORY)
        for space in model.i2c:
            assert (space.source.c.numpy() == space.target.c.numpy()).all() == same


def test_collapse_stops_if_asked_and_is_said_once(small, tmp_path, two_cpus, monkeypatch, capsys):
    from sitn_tf.evaluation import collapse

    monkeypatch.setattr(collapse, "COSINE", -1.0)
    strategy = cpu_strategy(two_cpus[:1])
    stage1.run_stage1(config.tiny(), small, tmp_path / "warn", strategy)
    said = [line for line in capsys.readouterr().out.splitlines() if "are alike" in line]
    assert [line[: line.index(":", 9)] for line in sorted(said)] == [
        f"warning: the {domain} clusters of K = {size} are alike"
        for domain in schema.DOMAINS
        for size in (4, 8)
    ]
    history = runs.read_json(tmp_path / "warn" / runs.HISTORY_FILE, [])
    assert "clusters_8/target/cosine" in history[-1]
    chosen = config.override(config.tiny(), ["stage1.collapse=stop"])
    with pytest.raises(
        InputError, match=r"stage 1 has collapsed \(the .* clusters of K = . are alike"
    ):
        stage1.run_stage1(chosen, small, tmp_path / "stop", strategy)
