"""Worker processes of the local runner, which a server forks and which end with it."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile

from pipelines.job import local_worker
from tests.pipelines.processes import ROOT

_LAUNCHER = """
import time
from pipelines.job import local_worker
with local_worker.server() as command:
    print(command, flush=True)
    time.sleep(600)
"""


def test_a_worker_ends_with_a_launcher_that_is_killed():
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    command = shlex.split(launcher.stdout.readline())
    # Nothing listens there: the worker waits for its runner.
    runner = {"CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"', "WORKER_ID": "worker_0"}
    worker = subprocess.Popen(command, env=os.environ | runner, stderr=subprocess.DEVNULL)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert worker.wait(60) == 1


def test_a_long_folder_of_temporary_files_has_no_socket(monkeypatch, tmp_path):
    """A socket's path may have some hundred bytes."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with local_worker.server() as command:
        path = shlex.split(command)[-1]
        assert os.path.exists(path)
    assert not os.path.exists(path)
    assert list(long.iterdir()) == []
