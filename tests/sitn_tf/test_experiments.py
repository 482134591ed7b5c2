import json
import re
import signal
import subprocess
import sys
import time

import pytest

from sitn_tf import config, experiments, locks, train
from sitn_tf.commit import commit
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions
from sitn_tf.studies import catalogue, run_logs, runs
from sitn_tf.studies.arms import AS_IT_IS
from tests.commands import run_main
from tests.sitn_tf.training.resuming import assert_same_outcome


@pytest.mark.parametrize("study", catalogue.STUDIES)
def test_every_arm_is_a_valid_configuration(study):
    for arm in catalogue.STUDIES[study].values():
        config.override(config.default(), arm.settings)


@pytest.mark.parametrize("study", ["gaps", "quality", "i2c", "sweeps"])
def test_no_two_arms_are_the_same(study):
    arms = catalogue.STUDIES[study].values()
    made = {
        (arm.pretrain, config.override(config.default(), [*AS_IT_IS, *arm.settings]))
        for arm in arms
    }
    assert len(made) == len(arms)


def test_table_2_has_every_model_but_the_control():
    table2 = catalogue.STUDIES["table2"]
    assert next(iter(table2)) == "sitn"
    assert sorted(table2) == sorted(config.SECTIONS.keys() - {"mean_pool"})
    assert [name for name, arm in table2.items() if arm.pretrain] == ["sitn", "semi"]


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"^study=nothing is neither one of: table2, table3"):
        catalogue.read_study("nothing", [])
    with pytest.raises(InputError, match=r"^arms=i2j is not one of: from_scratch, i2i, i2i_i2c"):
        catalogue.read_study("transfer", ["i2j"])
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(InputError, match="is not a JSON object of arms"):
        catalogue.read_study(str(tmp_path / "study.json"), [])


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "is not a JSON object of arms"),
        ({"../up": {}}, "arm '../up' names a folder: give it letters"),
        ({"a": None}, "arm 'a' is None, not an object"),
        ({"a": {"setings": []}}, "arm 'a': 'setings' is not one of: settings, pretrain"),
        ({"a": {"settings": "stage1.epochs=1"}}, "settings='stage1.epochs=1' is not a list"),
        ({"a": {"pretrain": "false"}}, "pretrain='false' is not true or false"),
    ],
)
def test_mistakes_in_a_study_are_named(tmp_path, described, message):
    (tmp_path / "study.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=message):
        catalogue.read_study(str(tmp_path / "study.json"), [])


def test_nothing_is_written_for_a_study_that_cannot_run(small, tmp_path):
    flags = [f"--data_dir={small}", f"--workdir={tmp_path / 'runs'}"]
    with pytest.raises(InputError, match="--stage=1: no arm of the study has a stage 1"):
        run_main(experiments, *flags, "--stage=1", "--arms=from_scratch")
    with pytest.raises(InputError, match="no such field"):
        run_main(experiments, *flags, "--set=stage1.epoch=1")
    assert not (tmp_path / "runs").exists()
    lock = locks.beside(tmp_path / "runs")
    busy = pytest.raises(InputError, match=r"workdir=.* is being written by process")
    with locks.held(lock, "another"), busy:
        run_main(experiments, *flags)


def test_a_study_of_a_file_has_its_name_and_no_table_where_all_runs_fail(
    small, tmp_path, monkeypatch, capsys
):
    names = []

    def run_study(study, jobs):
        names.append(study.name)
        return [], ["a, seed 0 (it said nothing)"]

    monkeypatch.setattr(experiments, "run_study", run_study)
    (tmp_path / "mine.json").write_text('{"a": {"pretrain": false}}')
    flags = [f"--data_dir={small}", f"--workdir={tmp_path / 'runs'}", "--preset=tiny"]
    with pytest.raises(InputError, match=r"^a, seed 0 \(it said nothing\)$"):
        run_main(experiments, *flags, f"--study={tmp_path / 'mine.json'}")
    assert names == ["mine"]
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_signal_ends_the_trainer_too(small, tmp_path):
    command = [sys.executable, "-m", "sitn_tf.experiments", f"--data_dir={small}", "--seeds=1"]
    command += [f"--workdir={tmp_path / 'runs'}", "--preset=tiny", "--arms=i2i"]
    command += ["--set=stage1.epochs=100000", "--set=stage1.patience=100000"]
    study = subprocess.Popen(command)
    log = tmp_path / "runs/i2i/0" / run_logs.FILE
    while not (log.is_file() and "epoch" in log.read_text()):
        time.sleep(0.2)
    study.terminate()
    assert study.wait(timeout=300) == 128 + signal.SIGTERM
    assert "is saved: give the same command again" in log.read_text()


@pytest.mark.slow
def test_a_study_continues_and_shows_its_table(small, tmp_path, capsys):
    study = tmp_path / "study.json"
    study.write_text(json.dumps({"scratch": {"pretrain": False}, "ssl": {}}))
    flags = [
        f"--study={study}",
        f"--data_dir={small}",
        f"--workdir={tmp_path / 'runs'}",
        "--seeds=1",
        "--preset=tiny",
        "--set=stage1.epochs=1",
        "--set=stage2.epochs=1",
    ]
    run_main(experiments, *flags)
    first = capsys.readouterr().out
    assert "[2/2] ssl, seed 0: validation AUC" in first
    weights = tmp_path / "runs/ssl/0/stage2/checkpoints/best"
    before = {path.name: path.stat().st_mtime_ns for path in weights.iterdir()}
    run_main(experiments, *flags)
    assert {path.name: path.stat().st_mtime_ns for path in weights.iterdir()} == before
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table == [line for line in first.splitlines() if line.startswith("|")]
    with pytest.raises(InputError, match=r"scratch/0/stage2 holds another run \(.*encoder\.heads"):
        run_main(experiments, *flags, "--set=encoder.heads=4")


def write_study(path, **arms):
    path.write_text(json.dumps(arms))
    return f"--study={path}"


SHORT = ["--preset=tiny", "--set=stage1.epochs=1", "--set=stage2.epochs=1"]


def test_a_study_trains_what_the_command_trains(small, tmp_path, capfd):
    """Two arms after one another in a process; the one that fails is named with its words."""
    mean = {"settings": ["model.name=mean_pool", "model.dropout=0.2"], "pretrain": False}
    fails = mean | {"settings": ["model.name=mean_pool", "stage2.log_q=true"]}
    study = write_study(tmp_path / "study.json", fails=fails, mean=mean)
    flags, workdir = [f"--data_dir={small}", *SHORT], tmp_path / "runs"
    with pytest.raises(
        InputError, match=r"^fails, seed 0 \(error: stage2.log_q=True: .*fails/0/log\.txt"
    ):
        run_main(experiments, *flags, study, f"--workdir={workdir}", "--seeds=1")
    said = capfd.readouterr().out
    assert "[1/2] fails, seed 0: failed (error: stage2.log_q=True" in said
    assert re.search(r"\[2/2\] mean, seed 0: validation AUC 0\.\d+, \d+ s, 0 min left", said)
    assert "| fails | 0 | not run" in said
    shown = (workdir / "results-validation.html").read_text()
    assert "sitn_tf.experiments" in shown
    assert "validation AUC" in shown
    kept = kept_predictions.read(workdir / "mean/0/stage2", "validation")
    assert len(kept.user) == 30
    [result] = json.loads((workdir / "results-validation.json").read_text())
    assert result["commit"] == commit()
    settings = [f"--set={setting}" for setting in mean["settings"]]
    run_main(train, *flags, "--stage=2", f"--workdir={tmp_path}", "--seed=0", *settings)
    assert_same_outcome(workdir / "mean/0/stage2", tmp_path / "stage2")


@pytest.mark.slow
def test_shares_of_the_labels_start_from_one_stage_1(small, tmp_path):
    study = write_study(tmp_path / "study.json", scratch={"pretrain": False}, ssl={})
    workdir = tmp_path / "runs"
    flags = [f"--data_dir={small}", *SHORT, study, f"--workdir={workdir}", "--seeds=1"]
    run_main(experiments, *flags, "--labels=0.4,1")
    assert len(list((workdir / "stage1").iterdir())) == 1
    names = {path.parent.parent.name for path in workdir.glob("*/0/stage2")}
    assert names == {"scratch", "ssl", "scratch.labels_0.4", "ssl.labels_0.4"}
    text = (workdir / "results-validation.md").read_text()
    [few] = re.findall(r"\| 0\.4 \| (\d+) \|", text)
    assert 0 < int(few) < 120
    assert "| 1 | 120 |" in text
    assert "## With 40 % of the labels" in text
    assert "not kept" not in text
    with pytest.raises(InputError, match=r"--labels=0\.4 are of stage 2, which --stage=1 has not"):
        run_main(experiments, *flags, "--labels=0.4", "--stage=1")


@pytest.mark.slow
def test_arms_start_from_one_stage_1_which_is_that_of_the_command(small, tmp_path):
    arms = {name: {"settings": [f"stage2.encoder_rate={name}"]} for name in ("0.5", "0.7")}
    study = write_study(tmp_path / "study.json", **arms)
    flags, workdir = [f"--data_dir={small}", *SHORT], tmp_path / "runs"
    run_main(experiments, *flags, study, f"--workdir={workdir}", "--seeds=1", "--jobs=2")
    assert len(list((workdir / "stage1").iterdir())) == 1
    settings = ["--seed=0", "--set=stage2.encoder_rate=0.7", f"--workdir={tmp_path}"]
    for stage in "12":
        run_main(train, *flags, f"--stage={stage}", *settings)
    assert_same_outcome(workdir / "0.7/0/stage2", tmp_path / "stage2")


def test_a_model_without_a_stage_1_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"model\.name=din has no stage 1, which an arm"):
        runs.Study("data", tmp_path, catalogue.STUDIES["transfer"], settings=["model.name=din"])


def test_each_measure_has_its_own_results(tmp_path):
    def written(**chosen):
        return runs.Study(
            "data", tmp_path, catalogue.STUDIES["transfer"], **chosen
        ).results_file.name

    assert written() == "results-validation.json"
    assert written(split="test") == "results-test.json"


def test_arms_share_a_stage_1_unless_they_change_it():
    def of(*settings):
        return config.for_stage1(config.override(config.default(), settings)).used()

    same = ["stage2.contrast_weight=0.1", "model.request_features=hour", "mlp.products=false"]
    assert of(*same) == of()
    for other in ("stage1.train_ids=false", "encoder.heads=2", "model.dropout=0.1"):
        assert of(other) != of()
