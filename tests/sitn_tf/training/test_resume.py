"""A run that is killed and continued ends with the bits of one that was not."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import checkpoints, config, runs, schema
from sitn_tf.training import signals, stage1, stage2, steps, train_loop
from tests.eagerly import op_by_op
from tests.sitn_tf.training.resuming import assert_same_outcome

SETTINGS = (
    "model.dropout=0.2",
    "model.popularity=true",
    "contrast.granularities=4",
    "stage1.batch_size=8",
    "stage2.batch_size=16",
    "stage1.epochs=2",
    "stage2.epochs=2",
    "stage1.patience=9",
    "stage2.patience=9",
    "stage1.schedule=cosine",
    "stage1.decay_steps=20",
    "stage2.warmup_steps=3",
    "stage2.optimizer=adagrad",
    "stage2.clip_norm=0.5",
)
OPTIONS = {"wide_deep": ["wide.optimizer=ftrl"]}
"""Of models, for what their defaults don't try."""

RANDOM_KILLS = 20
"""Of each stage, in the slow test."""


@pytest.fixture(scope="module")
def settings():
    return config.override(config.tiny(), SETTINGS)


def _train(stage, settings, data_dir, run_dir, loop=None):
    """Trains in this process, as `sitn_tf.train` does in one of its own."""
    tf_keras.utils.set_random_seed(settings.seed)
    strategy = tf.distribute.get_strategy()
    if stage == schema.STAGE1:
        return stage1.run_stage1(settings, data_dir, run_dir, strategy, loop)
    return stage2.run_stage2(settings, data_dir, run_dir, strategy, "none", loop)


@pytest.fixture(scope="module")
def whole(small, settings, tmp_path_factory):
    """By stage, a run without interruption or checkpoints within its epochs.

    Stage 2 is run as graphs, which round as they are traced.
    """
    parent = tmp_path_factory.mktemp("whole")
    with op_by_op():
        _train(schema.STAGE1, settings, small, parent / schema.STAGE1)
    _train(schema.STAGE2, settings, small, parent / schema.STAGE2)
    return parent


class _Killed(BaseException):
    """Stands for kill -9: nothing of the package catches it."""


def _kill_at(monkeypatch, owner, name, call, after=lambda *arguments: None):
    """The `call`-th call of a function does `after` and then dies instead."""
    original = getattr(owner, name)
    calls = 0

    def dying(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            after(*arguments)
            raise _Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, dying)


def _tear_the_index(written, number):
    (written.directory / f"ckpt-{number}.index").unlink()
    (written.directory / f"ckpt-{number}_temp").mkdir()


# What to die of in each life of a run, in turn: a step, a checkpoint before its index is there,
# after its index and before the name of the current one, between best weights and checkpoint,
# between checkpoint and history, between the last checkpoint and the metrics.
DEATHS = {
    schema.STAGE1: [
        (steps, "split_rows", 4),
        (checkpoints.Checkpoints, "mark", 3, _tear_the_index),
        (train_loop.runs, "write_history", 2),
        (train_loop.whole_files, "write_json", 2),
    ],
    schema.STAGE2: [
        (checkpoints.Checkpoints, "mark", 1),
        (steps, "split_rows", 7),
        (train_loop._Fit, "_save", 2),
        (checkpoints.Checkpoints, "mark", 4),
        (train_loop, "restore_best", 1),
    ],
}


@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
def test_killed_at_chosen_moments(stage, small, settings, whole, tmp_path):
    loop = train_loop.Loop(checkpoint_steps=2, log_steps=3)
    with op_by_op() if stage == schema.STAGE1 else contextlib.nullcontext():
        for owner, name, *how in DEATHS[stage]:
            with pytest.MonkeyPatch.context() as patch:
                _kill_at(patch, owner, name, *how)
                with pytest.raises(_Killed):
                    _train(stage, settings, small, tmp_path / stage, loop)
        _train(stage, settings, small, tmp_path / stage, loop)
    assert_same_outcome(tmp_path / stage, whole / stage)


@pytest.mark.usefixtures("op_by_op")
@pytest.mark.parametrize("name", [name for name in config.SECTIONS if name != "sitn"])
def test_every_other_model_goes_on_within_an_epoch(name, small, tmp_path, monkeypatch):
    """One run, and what a kill -9 in its second epoch would have left, continued."""
    changes = [*SETTINGS, "stage2.batch_size=32", *OPTIONS.get(name, [])]
    chosen = config.override(config.tiny(), [f"model.name={name}", *changes])
    whole, left = tmp_path / "whole", tmp_path / "left"
    original, calls = steps.split_rows, itertools.count(1)

    def copying(*arguments):
        # After a checkpoint at the fifth step, the first of the second epoch.
        if next(calls) == 7:
            shutil.copytree(whole, left)
        return original(*arguments)

    monkeypatch.setattr(steps, "split_rows", copying)
    loop = train_loop.Loop(checkpoint_steps=5)
    _train(schema.STAGE2, chosen, small, whole, loop)
    assert not (left / runs.METRICS_FILE).exists()
    _train(schema.STAGE2, chosen, small, left, loop)
    # Steps 6 to 8 again, and no other.
    assert next(calls) == 1 + 8 + 3
    assert_same_outcome(left, whole)


def test_a_damaged_checkpoint_is_passed_over(small, settings, whole, tmp_path, capsys):
    loop = train_loop.Loop(checkpoint_steps=1)
    run_dir = tmp_path / "stage2"
    with pytest.MonkeyPatch.context() as patch:
        _kill_at(patch, steps, "split_rows", 6)
        with pytest.raises(_Killed):
            _train("stage2", settings, small, run_dir, loop)
    [before, newest] = sorted((run_dir / runs.LAST).glob("*.data-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    _train("stage2", settings, small, run_dir, loop)
    warning = capsys.readouterr().err
    assert f"warning: {newest.with_suffix('')} (" in warning
    assert f"can't be read: going back to {before.with_suffix('')}" in warning
    assert_same_outcome(run_dir, whole / "stage2")


def test_a_stop_during_validation_is_saved(small, settings, whole, tmp_path, monkeypatch):
    assert threading.current_thread() is threading.main_thread()
    with pytest.MonkeyPatch.context() as patch:
        _kill_at(
            patch, stage2, "fit_and_predict", 2, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(signals.StoppedError):
            _train("stage2", settings, small, tmp_path / "stage2")
    _train("stage2", settings, small, tmp_path / "stage2")
    assert_same_outcome(tmp_path / "stage2", whole / "stage2")


def _command(stage, small, workdir, *more):
    changed = [f"--set={setting}" for setting in (*SETTINGS, *more)]
    init = ["--init=none"] if stage == schema.STAGE2 else []
    number = stage.removeprefix("stage")
    return [
        *(sys.executable, "-m", "sitn_tf.train", f"--stage={number}", f"--data_dir={small}"),
        *(f"--workdir={workdir}", "--preset=tiny", "--checkpoint_steps=3", *init, *changed),
    ]


def _start(command):
    """A process whose loop is running, with its output so far."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch" in line:
            break
    return process, lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_next_is_as_before(number):
    came = []
    before = signal.signal(number, lambda *_: came.append(number))
    try:
        with signals.StopRequest() as stop:
            os.kill(os.getpid(), number)
            assert stop.requested
            assert not came
            os.kill(os.getpid(), number)
        assert came == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_exits_with_a_status_of_its_own(small, tmp_path, number):
    command = _command(
        schema.STAGE1, small, tmp_path, "stage1.epochs=100000", "stage1.patience=100000"
    )
    process, lines = _start(command)
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == signals.STOPPED_STATUS == 75, [*lines, rest]
    assert f"stopped; {tmp_path / 'stage1'} is saved: give the same command again" in rest
    assert tf.train.latest_checkpoint(str(tmp_path / "stage1" / runs.LAST))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
def test_killed_at_random_moments(stage, small, tmp_path):
    epochs = (f"{stage}.epochs=25", f"{stage}.patience=25")
    subprocess.run(_command(stage, small, tmp_path / "whole", *epochs), check=True)
    moments = random.Random(0)
    kills = finished = 0
    while kills < RANDOM_KILLS or not finished:
        workdir = tmp_path / f"killed-{finished}"
        process, _ = _start(_command(stage, small, workdir, *epochs))
        if kills < RANDOM_KILLS:
            try:
                process.communicate(timeout=moments.uniform(0, 8))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        process.communicate()
        if (workdir / stage / runs.METRICS_FILE).is_file():
            finished += 1
            assert_same_outcome(workdir / stage, tmp_path / "whole" / stage)
