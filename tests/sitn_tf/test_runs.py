"""Run directories: which run is the same, and what damaged files of one are told as."""

import dataclasses
import json

import pytest

from sitn_tf import config, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.training import race


@pytest.fixture
def moved(tmp_path):
    """A parent of both stages under a new name."""
    for name in ("new/stage1", "new/stage2.race/stage1", "other/stage1"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "new"


@pytest.mark.parametrize("run", ["stage2", "stage2.race", "stage2.race/stage1"])
def test_a_stage_1_moved_with_its_stage_2_is_the_same(moved, run):
    old, new = (str(moved.parent / name / "stage1") for name in ("old", "new"))
    assert runs.same_init(moved / run, old, new)
    assert runs.same_init(moved / run, new, new)


def test_another_stage_1_is_not_the_same(moved):
    run, new = moved / "stage2", str(moved / "stage1")
    other = str(moved.parent / "other" / "stage1")
    assert not runs.same_init(run, other, new), "it is still there"
    assert not runs.same_init(run, str(moved.parent / "gone" / "stage1"), other), "not beside"
    assert not runs.same_init(run, str(moved.parent / "old" / "first"), new), "another name"
    assert not runs.same_init(run, runs.NO_INIT, new)
    assert not runs.same_init(run, new, runs.NO_INIT)
    assert runs.same_init(run, runs.NO_INIT, runs.NO_INIT)


@pytest.fixture
def stage1_dir(tmp_path):
    """As far as its identity is asked for."""
    run_dir = tmp_path / "stage1"
    (run_dir / runs.BEST).mkdir(parents=True)
    (run_dir / runs.CONFIG_FILE).write_text("{}")
    (run_dir / runs.BEST / "ckpt-3.index").write_bytes(b"weights")
    return run_dir


def test_a_stage_2_does_not_go_on_over_a_stage_1_that_was_trained_again(
    small, tmp_path, stage1_dir
):
    manifest = schema.read_manifest(small)

    def prepare(init=str(stage1_dir)):
        info = runs.info_of(schema.STAGE1, small, manifest, init)
        runs.prepare(tmp_path / "run", config.tiny(), manifest, info)

    prepare()
    prepare()
    before = runs.stage1_hash(str(stage1_dir))
    moved = stage1_dir.rename(tmp_path / "moved")
    assert runs.stage1_hash(str(moved)) == before
    moved.rename(stage1_dir)
    (stage1_dir / runs.BEST / "ckpt-3.index").write_bytes(b"others")
    after = runs.stage1_hash(str(stage1_dir))
    again = rf"\(there, here: init=.*stage1, which was trained again: {before}, {after}\)"
    with pytest.raises(InputError, match=rf"run holds another run {again}: train into another"):
        prepare()
    raced = {"init": str(stage1_dir), "init_hash": before}
    (tmp_path / "raced").mkdir()
    (tmp_path / "raced" / runs.RACE_FILE).write_text(json.dumps(raced))
    with pytest.raises(InputError, match=rf"raced holds another run {again}"):
        race._check(tmp_path / "raced", str(stage1_dir), asked=True)

    told = dataclasses.asdict(runs.read_info(tmp_path / "run"))
    del told["init_hash"]
    (tmp_path / "run" / runs.RUN_FILE).write_text(json.dumps(told))
    prepare()
    (tmp_path / "raced" / runs.RACE_FILE).write_text(json.dumps({"init": str(stage1_dir)}))
    race._check(tmp_path / "raced", str(stage1_dir), asked=True)


def test_a_missing_configuration_is_named_once(tmp_path):
    with pytest.raises(InputError) as raised:
        runs.read_config(tmp_path)
    assert str(raised.value).count(str(tmp_path / runs.CONFIG_FILE)) == 1


def test_the_runs_own_manifest_is_named(tmp_path):
    path = tmp_path / schema.MANIFEST_FILE
    path.write_bytes(b"\xff")
    with pytest.raises(
        InputError,
        match=rf"^{path} is damaged .*train again with python -m sitn_tf.train --overwrite",
    ):
        runs.read_manifest(tmp_path)


def written_run(run_dir, small, stage="stage2", **changes):
    """A run directory as it begins."""
    manifest = dataclasses.replace(schema.read_manifest(small), **changes)
    info = runs.info_of(stage, small, manifest, runs.NO_INIT)
    runs.prepare(run_dir, config.tiny(), manifest, info)
    return run_dir


def test_a_run_does_not_go_on_with_another_data_set(small, tmp_path):
    written_run(tmp_path / "stage1", small, "stage1")
    written_run(tmp_path / "stage1", small, "stage1")
    told = r"holds another run \(there, here: dataset_hash: small, another\): train into another"
    with pytest.raises(InputError, match=told):
        written_run(tmp_path / "stage1", small, "stage1", dataset_hash="another")


def test_a_run_of_the_other_stage_is_told_where_this_one_is(small, tmp_path):
    stage2 = written_run(tmp_path / "run" / "stage2", small)
    stage1 = written_run(tmp_path / "run" / "stage1", small, "stage1")
    with pytest.raises(
        InputError, match=rf"run holds no run of stage 2: name the one of stage 2, {stage2}, or bri"
    ):
        runs.check_finished(tmp_path / "run", schema.STAGE2)
    with pytest.raises(
        InputError, match=rf"stage1 holds a run of stage1, not of stage2: name the one .*{stage2}$"
    ):
        runs.check_finished(stage1, schema.STAGE2)
    (stage2 / runs.RUN_FILE).unlink()
    with pytest.raises(InputError, match=r"not of stage2: train one with python -m .* --stage=2$"):
        runs.check_finished(stage1, schema.STAGE2)
    with pytest.raises(InputError, match=r"stage 2: train one .*, or bring its run\.json back$"):
        runs.check_finished(stage2, schema.STAGE2)
