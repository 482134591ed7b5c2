import json

import pytest

from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions
from sitn_tf.studies import readings, runs, workers
from sitn_tf.studies.arms import Arm
from sitn_tf.studies.tables import Result


def test_a_runs_parameters_and_lost_seconds(tmp_path):
    """8 x 16 and 16 and 1 (a scalar) of 145, the 128 frozen; a race of 30 s, the winner's 12 s."""
    started = {
        "init": "x",
        "lift": None,
        "restored": ["a/b:0 [8, 16]"],
        "fresh": ["c:0 [16]", "d:0 []"],
    }
    (tmp_path / "initialization.json").write_text(json.dumps(started))
    assert runs._parameters(tmp_path, frozen=False) == 145
    assert runs._parameters(tmp_path, frozen=True) == 17
    assert runs._lost_seconds(tmp_path) == {}
    raced = {
        "seconds": 30.0,
        "winner": "a",
        "starts": {"a": {"seconds": 12.0}, "b": {"seconds": 18.0}},
    }
    (tmp_path / "race.json").write_text(json.dumps(raced))
    assert runs._lost_seconds(tmp_path) == {"race": 18.0}


def test_each_scoring_of_the_test_split_is_recorded(small, tmp_path, monkeypatch):
    """Runs score at once: one interrupted after two, then the rest, then one again, then a seed."""
    scored = set()

    def do_all(tasks, do, jobs, may_begin):
        for run in tasks[:2]:
            scored.add((run.arm, run.seed))
            yield run, 1.0

    monkeypatch.setattr(workers, "do_all", do_all)
    monkeypatch.setattr(runs.Run, "is_finished", lambda run: (run.arm, run.seed) in scored)
    monkeypatch.setattr(runs.Run, "result", lambda run: Result(run.arm, run.seed, 0.5))

    def read(seeds=2, split="test"):
        arms = {"a": Arm(pretrain=False), "b": Arm(("model.dropout=0.1",), pretrain=False)}
        study = runs.Study(str(small), tmp_path, arms, seeds, split=split, name="ab")
        runs.run_study(study)
        return [reading.seeds for reading in readings.read(tmp_path)]

    assert read(split="validation") == []
    scored.clear()
    assert read() == [{"a": [0], "b": [0]}]
    assert read() == read() == [{"a": [0, 1], "b": [0, 1]}]
    scored.remove(("b", 0))
    assert read() == [{"a": [0, 1], "b": [0, 1]}, {"b": [0]}]
    assert read(seeds=3)[2:] == [{"a": [2], "b": [2]}]


def test_a_process_that_died_is_told_by_how_it_ended(small, tmp_path, monkeypatch):
    def do_all(tasks, do, jobs, may_begin):
        for run, outcome in zip(tasks, (-9, None), strict=True):
            run.log.parent.mkdir(parents=True)
            run.log.write_text("== began now\nepoch 1\n")
            yield run, outcome

    monkeypatch.setattr(workers, "do_all", do_all)
    study = runs.Study(str(small), tmp_path, {"a": Arm(pretrain=False)}, seeds=2)
    study.results_file.write_text("of another study in this workdir")
    _, failed = runs.run_study(study)
    assert study.results_file.read_text() == "of another study in this workdir"
    assert failed[0].startswith("a, seed 0 (its process was ended by SIGKILL, as where memory")
    assert failed[1].startswith("a, seed 1 (epoch 1): see ")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_run_killed_between_training_and_keeping_its_predictions_is_scored(
    small, tmp_path, split
):
    """Training itself writes the validation metrics."""
    arms = {"a": Arm(pretrain=False)}
    study = runs.Study(str(small), tmp_path, arms, seeds=1, split=split)
    run = study.runs()[0]
    run.stage2.mkdir(parents=True)
    assert not run.is_scored()
    (run.stage2 / "metrics.json").write_text(json.dumps({split: {"auc": 0.5}}))
    assert not run.is_scored()
    kept_predictions.path(run.stage2, split).touch()
    assert run.is_scored()


@pytest.mark.parametrize(
    ("init", "lift", "pretrain", "told"),
    [
        ("../stage1", 3.0, False, "offered a stage 1, none"),
        ("none", 1.2, False, "offered a stage 1, none"),
        ("none", None, True, "offered no stage 1, one"),
        ("../stage1", 3.0, True, None),
        ("none", None, False, None),
    ],
)
def test_a_run_of_an_arm_with_another_start_is_not_the_arms(
    small, tmp_path, init, lift, pretrain, told
):
    """`none` with a lift: what was offered found too little to transfer."""
    study = runs.Study(str(small), tmp_path, {"a": Arm(pretrain=pretrain)}, seeds=1)
    run = study.runs()[0]
    run.stage2.mkdir(parents=True)
    info = {"stage": "stage2", "data_dir": str(small), "init": init, "versions": {}}
    info["dataset_hash"] = run.manifest.dataset_hash
    (run.stage2 / "run.json").write_text(json.dumps(info))
    (run.stage2 / "config.json").write_text(run.config.to_json())
    (run.stage2 / "initialization.json").write_text(json.dumps({"lift": lift}))
    if told is None:
        assert not run.is_finished()
        return
    with pytest.raises(InputError, match=rf"a/0/stage2 holds another run \(there, here: {told}\)"):
        run.is_finished()
