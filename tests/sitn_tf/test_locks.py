"""One writer at a time, whatever became of the last one."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from sitn_tf import locks
from sitn_tf.errors import InputError

HOLD = """
import pathlib, sys, time
from sitn_tf import locks
with locks.held(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(tmp_path, other):
    with (
        pytest.raises(
            InputError,
            match=rf"^workdir=RUN is being written by process {other.pid} on .* since 20.*"
            rf"\(-c {re.escape(str(tmp_path))}/lock\): wait until it has ended",
        ),
        locks.held(tmp_path / "lock", "workdir=RUN"),
    ):
        pass


def test_a_killed_holder_is_no_obstacle(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "lock").exists()
    with locks.held(tmp_path / "lock", "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_folders_made_for_it_go_unless_something_is_in_them(tmp_path):
    with locks.held(tmp_path / "a" / "b" / "lock", "x"):
        (tmp_path / "a" / "mine").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


def _no_flock(*_):
    raise OSError(locks.errno.EOPNOTSUPP, "no locks here")


def test_without_flock_the_file_is_the_lock_and_a_dead_holder_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", _no_flock)
    lock = tmp_path / "lock"
    with (
        locks.held(lock, "x"),
        pytest.raises(InputError, match=f"x is being written by process {os.getpid()} "),
        locks.held(lock, "x"),
    ):
        pass
    assert not lock.exists()
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    lock.write_text(json.dumps(locks._self() | {"pid": dead.pid}))
    with locks.held(lock, "x"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    lock.write_text(json.dumps(locks._self() | {"pid": dead.pid, "host": "elsewhere"}))
    with pytest.raises(InputError, match="on elsewhere since"), locks.held(lock, "x"):
        pass


def _meanwhile(monkeypatch, name, lock, stack):
    """Somebody else takes the lock once, when a function is called, and holds it."""
    original, entered = getattr(locks, name), []

    def called(*given):
        if not entered:
            entered.append(name)
            stack.enter_context(locks.held(lock, "theirs"))
        return original(*given)

    monkeypatch.setattr(locks, name, called)


@pytest.mark.parametrize("when", ["_sign", "_is_dead"])
def test_without_flock_one_of_two_that_begin_together_holds_the_lock(tmp_path, monkeypatch, when):
    """Neither a file that is not signed yet nor a dead one's is taken from who was faster."""
    monkeypatch.setattr(fcntl, "flock", _no_flock)
    lock = tmp_path / "lock"
    if when == "_is_dead":
        with subprocess.Popen([sys.executable, "-c", ""]) as dead:
            pass
        lock.write_text(json.dumps(locks._self() | {"pid": dead.pid}))
    with contextlib.ExitStack() as stack:
        _meanwhile(monkeypatch, when, lock, stack)
        with (
            pytest.raises(InputError, match=f"^ours is being written by process {os.getpid()} "),
            locks.held(lock, "ours"),
        ):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert not list(tmp_path.iterdir())


def test_without_flock_and_without_links_nothing_is_held(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(locks.errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "flock", _no_flock)
    monkeypatch.setattr(os, "link", no_links)
    with (
        pytest.raises(InputError, match=r"^x can't be locked: .*lock has neither flock nor links"),
        locks.held(tmp_path / "lock", "x"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_no_obstacle_but_where_the_file_is_the_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(locks.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    lock = tmp_path / "lock"
    with (
        locks.held(lock, "x"),
        pytest.raises(InputError, match="x is being written by somebody who has just begun"),
        locks.held(lock, "x"),
    ):
        pass
    monkeypatch.setattr(fcntl, "flock", _no_flock)
    with pytest.raises(OSError, match=f"No space left on device: '{lock}'"), locks.held(lock, "x"):
        pass
    assert not lock.exists()
