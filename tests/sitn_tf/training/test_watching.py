"""What people see of a run: event files, history tables, and the dry run."""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema, train
from sitn_tf.training import dry_run, stage2, train_loop
from sitn_tf.training.tensorboard import EventWriter
from tests import commands
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.usefixtures("module_op_by_op")


@pytest.fixture(scope="module")
def run_dir(small, tmp_path_factory):
    """A stage-2 run of two epochs of eight steps."""
    run_dir = tmp_path_factory.mktemp("run") / "stage2"
    settings = config.override(config.tiny(), ["stage2.batch_size=16", "stage2.warmup_steps=8"])
    strategy = tf.distribute.get_strategy()
    stage2.run_stage2(settings, small, run_dir, strategy, "none", train_loop.Loop(log_steps=4))
    return run_dir


def _events(directory):
    [path] = directory.glob("events.out.tfevents.*")
    return list(tf.compat.v1.train.summary_iterator(str(path)))


def _scalars(directory):
    return {
        (value.tag, event.step): value.simple_value
        for event in _events(directory)
        for value in event.summary.value
    }


def test_event_files_say_their_version_and_where_they_start(tmp_path):
    with EventWriter(tmp_path / "train", first_step=7) as writer:
        writer.scalars(7, {"loss": 0.5})
        writer.flush()
    version, start, value = _events(tmp_path / "train")
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step) == (tf.compat.v1.SessionLog.START, 7)
    assert (value.step, value.summary.value[0].tag) == (7, "loss")


def test_losses_and_rates_by_step_and_all_by_epoch(run_dir):
    train_scalars = _scalars(run_dir / runs.EVENTS / "train")
    steps = [step for tag, step in train_scalars if tag == "step/loss"]
    assert steps == [4, 8, 12, 16]
    # The 4th step has 4/9 of the peak, the 12th all of it.
    assert train_scalars["step/learning_rate", 4] == pytest.approx(4 / 9 * 1e-3)
    assert train_scalars["step/learning_rate", 12] == pytest.approx(1e-3)
    history = json.loads((run_dir / runs.HISTORY_FILE).read_text())
    validation = _scalars(run_dir / runs.EVENTS / "validation")
    for entry, step in zip(history, (8, 16), strict=True):
        assert train_scalars["epoch/loss", step] == pytest.approx(entry["loss"])
        assert validation["epoch/auc", step] == pytest.approx(entry["auc"])


@pytest.mark.slow
def test_tensorboard_reads_them(run_dir):
    program = shutil.which("tensorboard", path=pathlib.Path(sys.executable).parent)
    if program is None:
        pytest.skip("tensorboard is not installed: make env")
    command = [program, "--inspect", f"--logdir={run_dir / runs.EVENTS}", "--tag=step/loss"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "first_step 4 last_step 16" in told, told
    assert "num_steps 4" in told, told


def test_the_history_as_a_table_is_that_of_json(run_dir):
    history = json.loads((run_dir / runs.HISTORY_FILE).read_text())
    with open(run_dir / runs.HISTORY_TABLE) as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == history
    assert history[0]["records"] == 120


def test_a_table_has_room_for_what_only_some_epochs_have(tmp_path):
    runs.write_history(tmp_path, [{"epoch": 0, "recall": 0.5}, {"epoch": 1, "loss": 2.0}])
    table = (tmp_path / runs.HISTORY_TABLE).read_text()
    assert table == "epoch,recall,loss\n0,0.5,\n1,,2.0\n"


def test_a_skipped_start_leaves_the_rest_of_the_same_pass(small):
    whole = list(data.read_epoch(small, schema.STAGE2, 16, seed=3, epoch=2))
    for skip in (0, 3, 8):
        rest = list(data.read_epoch(small, schema.STAGE2, 16, seed=3, epoch=2, skip=skip))
        assert len(rest) == len(whole) - skip
        for ours, theirs in zip(rest, whole[skip:], strict=True):
            assert (ours["user_id"] == theirs["user_id"]).numpy().all()


def test_a_dry_run_counts_and_writes_nothing(small, tmp_path, capsys):
    where = (f"--data_dir={small}", f"--workdir={tmp_path / 'run'}", "--preset=tiny", "--dry_run")
    commands.run_main(train, "--stage=2", *where)
    printed = capsys.readouterr().out
    # 2,697 parameters of 4 bytes and Adam's two slots of each.
    assert "parameters: 2,697 trained" in printed
    assert "of adam's slots" in printed
    assert "an epoch: 120 records in 2 steps of 64; at most 2 epochs" in printed
    assert printed.endswith("dry run: nothing was written\n")
    assert not (tmp_path / "run").exists()
    lines = [line.split() for line in printed.splitlines()]
    assert ["source_items/ids:0", "20x8", "float32", "640", "B", "trained"] in lines


def test_a_dry_run_knows_what_stage_1_leaves_alone(small):
    described = dry_run.describe(
        config.override(config.tiny(), ["stage1.train_ids=false"]), schema.STAGE1, small, "none"
    )
    [ids] = [line for line in described.splitlines() if line.startswith("source_items/ids")]
    assert ids.endswith("fixed")


def test_a_dry_run_does_not_know_what_the_data_set_does_not_say(tmp_path):
    counted = write_small_dataset(tmp_path / "counted")
    manifest = json.loads((counted / schema.MANIFEST_FILE).read_text())
    manifest["records"] = {}
    (counted / schema.MANIFEST_FILE).write_text(json.dumps(manifest))
    described = dry_run.describe(config.tiny(), schema.STAGE2, counted, "none")
    assert "an epoch: an unknown number of records" in described
