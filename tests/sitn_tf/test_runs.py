"""Run directories: which run is the same, and what damaged files of one are told as."""

import pytest

from sitn_tf import runs, schema
from sitn_tf.errors import InputError


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
