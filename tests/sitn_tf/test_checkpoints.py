import logging
import pathlib

import pytest
import tensorflow as tf

from sitn_tf import runs
from sitn_tf.checkpoints import Checkpoints, restore_best
from sitn_tf.errors import InputError


def _checkpoints(directory, keep=2):
    variable = tf.Variable(tf.zeros([1000]))
    return variable, Checkpoints(directory, keep, variable=variable)


def _save(variable, kept, *numbers):
    for number in numbers:
        variable.assign(tf.fill([1000], float(number)))
        kept.save(number)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def test_the_newest_is_restored_and_only_the_newest_are_kept(tmp_path):
    variable, kept = _checkpoints(tmp_path / "last")
    assert kept.restore() is None
    _save(variable, kept, 0, 1, 2)
    variable.assign(tf.zeros([1000]))
    assert kept.restore() == 2
    assert float(variable[0]) == 2.0
    assert kept.numbers() == [1, 2]
    assert tf.train.latest_checkpoint(str(tmp_path / "last")).endswith("ckpt-2")
    kept.mark(1)
    assert tf.train.latest_checkpoint(str(tmp_path / "last")).endswith("ckpt-1")


def test_a_number_saved_again_drops_those_above_it(tmp_path):
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 3, 5, 4)
    assert kept.numbers() == [3, 4]


@pytest.mark.parametrize("harm", [_truncate, _flip_a_byte, lambda path: path.unlink()])
@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, capsys, part, harm):
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 1, 2)
    harm(tmp_path / f"ckpt-2.{part}")
    assert kept.restore() == 1
    assert float(variable[0]) == 1.0
    if (tmp_path / "ckpt-2.index").exists():
        warning = capsys.readouterr().err
        assert warning.startswith(f"warning: {tmp_path}/ckpt-2 (")
        assert f"can't be read: going back to {tmp_path}/ckpt-1\n" in warning
    _save(variable, kept, 3)
    assert kept.numbers() == [1, 3]


def test_when_all_are_damaged_the_error_names_them_and_the_remedy(tmp_path):
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 1, 2)
    for path in tmp_path.glob("*.data-*"):
        _truncate(path)
    with pytest.raises(
        InputError, match=r"no checkpoint of .*/ckpt-2 \(.*/ckpt-1 \(.*overwrite=True"
    ) as e:
        kept.restore()
    assert "\n" not in str(e.value)


def test_a_checkpoint_of_something_else_is_not_taken(tmp_path):
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 1)
    other = Checkpoints(tmp_path, 2, another=tf.Variable(0.0))
    with pytest.raises(InputError, match=r"can be read: .*ckpt-1 \(Found 1 Python objects"):
        other.restore()


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 1)
    (tmp_path / "ckpt-2_temp").mkdir()
    (tmp_path / "ckpt-2_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("someone's")
    kept.remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "ckpt-1.data-00000-of-00001",
        "ckpt-1.index",
        "notes.txt",
    ]


def test_a_checkpoint_that_is_half_removed_counts_as_none(tmp_path, monkeypatch):
    """Or a run whose process died then would go on from the rest, and call it damaged."""
    variable, kept = _checkpoints(tmp_path)
    _save(variable, kept, 1, 2)
    unlink = pathlib.Path.unlink

    def dies(path):
        monkeypatch.undo()
        unlink(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "unlink", dies)
    with pytest.raises(KeyboardInterrupt):
        _save(variable, kept, 3)
    assert kept.numbers() == [2, 3]
    assert (tmp_path / "ckpt-1.data-00000-of-00001").exists()
    kept.remove_leftovers()
    assert not list(tmp_path.glob("ckpt-1*"))


def test_where_nothing_names_the_best_checkpoint_the_file_that_should_is_named(tmp_path):
    variable, kept = _checkpoints(tmp_path / "checkpoints" / "best")
    _save(variable, kept, 1)
    named = tmp_path / "checkpoints" / "best" / "checkpoint"
    index = named.with_name("ckpt-1.index")
    index.rename(tmp_path / "index")
    with pytest.raises(InputError, match=rf"^{index}, which {named} names, is missing: bring the"):
        restore_best(tmp_path, tf.train.Checkpoint(variable=variable))
    named.write_text(named.read_text()[:30])
    with pytest.raises(InputError, match=rf"^{named} names no checkpoint: bring the files back"):
        restore_best(tmp_path, tf.train.Checkpoint(variable=variable))


def test_nobody_is_told_what_a_refused_checkpoint_would_have_restored(tmp_path, caplog):
    """TensorFlow warns of it when the model is freed: with the last words of a command."""
    _save(*_checkpoints(tmp_path / runs.BEST), 1)
    _flip_a_byte(tmp_path / runs.BEST / "ckpt-1.data-00000-of-00001")
    with pytest.raises(InputError, match="ckpt-1 does not load"):
        restore_best(tmp_path, tf.train.Checkpoint(a=tf.Variable([0.0])))
    log = logging.getLogger("tensorflow")
    log.warning("Value in checkpoint could not be found in the restored object: (root).model.b")
    log.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]
