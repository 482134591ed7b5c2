"""Starts that race: the best goes on, interrupted or not, and the run says how it came about."""

import json

import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import config, runs, schema, train, trained_models
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.errors import InputError
from sitn_tf.training import race, stage1, stage2, steps, train_loop
from tests import commands
from tests.eagerly import op_by_op
from tests.sitn_tf.training.resuming import assert_same_outcome
from tests.sitn_tf.training.test_resume import _kill_at, _Killed

SETTINGS = (
    "contrast.i2c_weight=0",
    "stage1.epochs=1",
    "stage2.epochs=2",
    "stage2.race_steps=1",
    "stage2.batch_size=32",
)


def _settings(*changes):
    return config.override(config.tiny(), [*SETTINGS, *changes])


@pytest.fixture(scope="module")
def offered(small, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("offered") / "stage1"
    with op_by_op():
        stage1.run_stage1(_settings(), small, run_dir, tf.distribute.get_strategy())
    return str(run_dir)


def _run(small, run_dir, init, *changes, **loop):
    chosen = (
        changes[0] if changes and isinstance(changes[0], config.Config) else _settings(*changes)
    )
    strategy = tf.distribute.get_strategy()
    return race.run(chosen, small, run_dir, strategy, init, train_loop.Loop(**loop))


class _Trainer:
    """Stands for `stage2.run_stage2`: each start reaches the AUC that it is given."""

    def __init__(self, **auc):
        self.auc, self.calls = auc, []

    def __call__(self, chosen, data_dir, run_dir, strategy, init, loop):
        if init == runs.NO_INIT:
            start = race.SCRATCH if chosen.model.use_source else race.NO_SOURCE
        else:
            start = race.STAGE1
        self.calls.append((run_dir.name, start, loop.until_steps, loop.overwrite))
        info = runs.RunInfo("stage2", str(data_dir), "small", init, {})
        manifest = schema.read_manifest(data_dir)
        runs.prepare(run_dir, chosen, manifest, info, loop.overwrite)
        entry = {"epoch": 1, "auc": self.auc[start]}
        runs.write_history(run_dir, [entry])
        return entry


@pytest.mark.parametrize(
    ("auc", "winner"),
    [
        ({"stage1": 0.8, "scratch": 0.7, "no_source": 0.6}, "stage1"),
        ({"stage1": 0.7, "scratch": 0.8, "no_source": 0.6}, "scratch"),
        ({"stage1": 0.7, "scratch": 0.6, "no_source": 0.8}, "no_source"),
        ({"stage1": 0.7, "scratch": 0.7, "no_source": 0.6}, "scratch"),
        ({"stage1": 0.7, "scratch": 0.7, "no_source": 0.7}, "no_source"),
    ],
)
def test_the_best_start_becomes_the_run(small, offered, tmp_path, monkeypatch, capsys, auc, winner):
    trainer = _Trainer(**auc)
    monkeypatch.setattr(stage2, "run_stage2", trainer)
    run_dir = tmp_path / "stage2"
    _run(small, run_dir, offered, "stage2.contrast_weight=0.01")
    starts = ["stage1", "scratch", "no_source"]
    assert trainer.calls == [*((s, s, 1, False) for s in starts), ("stage2", winner, 0, False)]
    raced = runs.read_json(run_dir / runs.RACE_FILE, None)
    assert raced["winner"] == winner
    assert {name: start["auc"] for name, start in raced["starts"].items()} == auc
    assert (raced["init"], raced["init_hash"]) == (offered, runs.stage1_hash(offered))
    assert raced["seconds"] == pytest.approx(sum(s["seconds"] for s in raced["starts"].values()))
    info, chosen = runs.read_info(run_dir), runs.read_config(run_dir)
    assert info.init == (offered if winner == "stage1" else runs.NO_INIT)
    assert chosen.model.use_source == (winner != "no_source")
    assert chosen.stage2.contrast_weight == (0.01 if winner != "no_source" else 0.0)
    assert runs.read_asked(run_dir) == _settings("stage2.contrast_weight=0.01")
    assert not runs.race_of(run_dir).exists()
    said = capsys.readouterr().out
    assert f"the race went to {winner}: training goes on from there. It took " in said
    assert all(f"\n{name:<12}" in said for name in starts)

    _run(small, run_dir, offered, "stage2.contrast_weight=0.01")
    assert trainer.calls[4:] == [("stage2", winner, 0, False)]
    with pytest.raises(InputError, match=r"holds another run .*init: .*stage1, none"):
        _run(small, run_dir, runs.NO_INIT, "stage2.contrast_weight=0.01")
    with pytest.raises(InputError, match=r"holds another run .*seed: 0, 1"):
        _run(small, run_dir, offered, "stage2.contrast_weight=0.01", "seed=1")
    trainer.auc = {"stage1": 0.1, "scratch": 0.2, "no_source": 0.1}
    _run(small, run_dir, offered, overwrite=True)
    assert runs.read_json(run_dir / runs.RACE_FILE, None)["winner"] == "scratch"


def test_there_is_a_race_only_where_there_is_a_choice(
    small, offered, tmp_path, monkeypatch, capsys
):
    trainer = _Trainer(stage1=0.8, scratch=0.7, no_source=0.6)
    monkeypatch.setattr(stage2, "run_stage2", trainer)
    monkeypatch.setattr(stage2.retrieval, "lift", lambda *_: 2.0)
    _run(small, tmp_path / "a", runs.NO_INIT)
    _run(small, tmp_path / "b", offered, "stage2.race_steps=0")
    _run(small, tmp_path / "c", offered, "stage2.min_lift=3", "model.use_source=false")
    assert [name for name, *_ in trainer.calls] == ["a", "b", "c"]
    _run(small, tmp_path / "d", offered, "stage2.min_lift=3")
    assert [name for name, *_ in trainer.calls[3:]] == ["scratch", "no_source", "d"]
    said = capsys.readouterr().out
    assert "stage2.min_lift is 3. It takes no part in the race" in said
    assert list(race.every_start(_settings("model.use_source=false"), offered)) == [
        "stage1",
        "scratch",
    ]
    joint = config.override(config.tiny(), ["model.name=minet", "stage2.race_steps=1"])
    assert list(race.every_start(joint, offered)) == ["stage1", "scratch"]


def test_a_race_of_another_command_is_refused(small, offered, tmp_path, monkeypatch):
    trainer = _Trainer(stage1=0.8, scratch=0.7)
    monkeypatch.setattr(stage2, "run_stage2", trainer)
    run_dir = tmp_path / "stage2"
    with pytest.raises(KeyError):
        _run(small, run_dir, offered)
    for change, init, message in (
        ("seed=1", offered, r"stage2\.race holds another run .*seed: 0, 1"),
        ("stage2.race_steps=0", offered, r"stage2\.race holds a race that is not decided"),
        ("seed=0", runs.NO_INIT, r"stage2\.race holds a race that is not decided"),
    ):
        with pytest.raises(InputError, match=message):
            _run(small, run_dir, init, change)
    trainer.auc["no_source"] = 0.6
    _run(small, run_dir, offered)
    assert [start for _, start, *_ in trainer.calls] == [
        *("stage1", "scratch", "no_source", "no_source", "stage1")
    ]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(InputError, match="full holds files, but no run"):
        _run(small, tmp_path / "full", offered)


# What to die of in each life of a race: a step of the first start, what follows the second's
# result, the rename, what follows it, a step of the winner on its way to the end.
DEATHS = [
    (steps, "split_rows", 3),
    (race.gc, "collect", 2),
    (race.pathlib.Path, "rename", 1),
    (race.shutil, "rmtree", 1),
    (steps, "split_rows", 2),
]


@pytest.mark.slow
def test_killed_anywhere_a_race_ends_with_the_bits_of_a_run_without_one(small, offered, tmp_path):
    run_dir = tmp_path / "raced"
    for owner, name, call in DEATHS:
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, owner, name, call)
            with pytest.raises(_Killed):
                _run(small, run_dir, offered, checkpoint_steps=1)
    _run(small, run_dir, offered)
    raced = runs.read_json(run_dir / runs.RACE_FILE, None)
    start = race.every_start(_settings(), offered)[raced["winner"]]
    strategy, alone = tf.distribute.get_strategy(), tmp_path / "alone"
    tf_keras.utils.set_random_seed(0)
    stage2.run_stage2(start.config, small, alone, strategy, start.init)
    assert_same_outcome(run_dir, alone)
    assert [s["epochs"] for s in raced["starts"].values()] == [1, 1, 1]
    for name in (runs.CONFIG_FILE, runs.RUN_FILE):
        assert (run_dir / name).read_text() == (alone / name).read_text()
    described = [json.loads((d / runs.INITIALIZATION_FILE).read_text()) for d in (run_dir, alone)]
    assert described[0]["init"] == described[1]["init"]
    assert trained_models.load_scorer(run_dir).scorer is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "raced"]


def test_the_mean_over_replicas_is_what_each_has(two_cpus):
    assert race._mean_over_workers(cpu_strategy(two_cpus), 0.7) == 0.7


@pytest.mark.usefixtures("op_by_op")
def test_a_stage_1_that_learned_nothing_is_said_aloud(small, tmp_path, monkeypatch, capsys):
    gains = iter([0.3, 0.2])
    original = stage1.held_out
    monkeypatch.setattr(
        stage1, "held_out", lambda *given: original(*given) | {"rank_gain": next(gains)}
    )
    given = [f"--data_dir={small}", f"--workdir={tmp_path}", "--preset=tiny"]
    given += [f"--set={setting}" for setting in SETTINGS]
    commands.run_main(train, "--stage=1", *given)
    said = capsys.readouterr().out
    warning = f"{tmp_path / 'stage1'} is 0: held-out users are found best with untrained weights"
    assert f"warning: the best epoch of {warning}" in said
    assert "; a race in stage 2 will show whether to start from it" in said
    assert "held-out rank gain 0.3000, recall@10 " in said
    commands.run_main(train, "--stage=2", *given, "--dry_run")
    assert "first a race of 1 steps each: stage1, scratch, no_source" in (capsys.readouterr().out)
    monkeypatch.setattr(stage2, "run_stage2", _Trainer(stage1=0.8, scratch=0.7, no_source=0.6))
    _run(small, tmp_path / "stage2", str(tmp_path / "stage1"))
    assert f"warning: the best epoch of {warning}" in capsys.readouterr().out
