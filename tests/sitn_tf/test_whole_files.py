"""Files and directories that are whole or absent."""

import gzip
import hashlib
import json
import pathlib

import numpy as np
import pytest

from sitn_tf import whole_files
from sitn_tf.errors import InputError


@pytest.fixture
def dies(monkeypatch):
    """Makes the process end just before something gets its final name, by that method of Path."""

    def at(method):
        def die(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(pathlib.Path, method, die)

    return at


def test_a_file_is_as_it_was_until_the_new_one_is_whole(tmp_path, dies):
    path = tmp_path / "history.json"
    whole_files.write_json(path, [1])
    dies("replace")
    with pytest.raises(KeyboardInterrupt):
        whole_files.write_json(path, [1, 2])
    assert json.loads(path.read_text()) == [1]
    others = [other for other in tmp_path.iterdir() if other != path]
    assert [json.loads(other.read_text()) for other in others] == [[1, 2]]
    assert all(other.suffix == ".tmp" for other in others)


def test_nothing_but_the_file_is_left(tmp_path):
    whole_files.write_text(tmp_path / "a", "é")
    whole_files.write_bytes(tmp_path / "a", b"later")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"later"}


def test_a_directory_appears_with_all_in_it(tmp_path):
    path = tmp_path / "new" / "made"
    with whole_files.directory(path) as unfinished:
        (unfinished / "a").write_text("whole")
        assert not path.exists()
        with pytest.raises(InputError, match="made is being written by process"):
            whole_files.directory(path).__enter__()
    assert [other.name for other in path.parent.iterdir()] == ["made"]
    assert (path / "a").read_text() == "whole"


def test_a_directory_that_fails_or_is_there_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), whole_files.directory(tmp_path / "a") as made:
        (made / "part").write_bytes((made / "missing").read_bytes())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "theirs").touch()
    with pytest.raises(OSError, match="not empty"), whole_files.directory(tmp_path / "b") as made:
        (made / "part").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "theirs"]


def test_what_a_killed_process_left_of_a_directory_is_none_of_it(tmp_path, dies, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(whole_files.shutil, "rmtree", lambda *_, **__: None)  # nobody tidies up
        dies("rename")
        with (
            pytest.raises(KeyboardInterrupt),
            whole_files.directory(tmp_path / "a") as unfinished,
        ):
            (unfinished / "half").touch()
    assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["a.unfinished", "half"]
    monkeypatch.undo()
    with whole_files.directory(tmp_path / "a") as unfinished:
        (unfinished / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "whole"]


def test_a_digest_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert whole_files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_an_array_is_as_numpy_saves_it_and_a_full_disk_is_known(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "numpy.npy", array)
    whole_files.write_rows(tmp_path / "ours.npy", [array], 2)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    whole_files.write_rows(tmp_path / "rows.npy", (array[n : n + 1] for n in range(2)), 2)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    by_column = np.asfortranarray(array)
    whole_files.write_rows(tmp_path / "columns.npy", [by_column], 2)
    np.testing.assert_array_equal(np.load(tmp_path / "columns.npy"), array)
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '/dev/full'"):
        whole_files.write_rows(full, [array], 2)


def test_a_file_that_is_open_is_named(tmp_path):
    with pytest.raises(OSError, match=r"^\[Errno 28\] full: '/a'$"), whole_files.naming("/a"):
        raise OSError(28, "full")
    with pytest.raises(gzip.BadGzipFile, match=r"^cut$"), whole_files.naming("/a"):
        raise gzip.BadGzipFile("cut")
