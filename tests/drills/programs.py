"""The project's commands as processes that a drill may kill.

They are forked from a process that has imported what they need (`imported`): TensorFlow and Beam
take some eight seconds for it, in which there is nothing to lose.
"""

import dataclasses
import logging
import multiprocessing
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

_log = logging.getLogger(__name__)
"""Hears how each command ended and what it said on standard error, but for progress."""

_LONGEST = 1800.0
"""Seconds after which a command is taken for one that hangs."""
_SAID = ("out", "err")
_BAR = re.compile(r"\d+%\|")

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.drills.imported"])


@dataclasses.dataclass(frozen=True)
class Command:
    """A module and its flags."""

    module: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.module, *self.flags))


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
      status: exit status; of one that was killed, the signal's number, negative.
      out, err: what it said.
      seconds: it took.
    """

    status: int
    out: str
    err: str
    seconds: float


class Program:
    """A command that has been started.

    Args:
      folder: for its output and its temporary files, which are removed when it has ended.
    """

    def __init__(self, command: Command, folder: pathlib.Path) -> None:
        self._command = command
        self._own = pathlib.Path(tempfile.mkdtemp(prefix=".program-", dir=folder))
        self._process = _forking.Process(target=_run, args=(command, str(self._own)))
        self._began = time.monotonic()
        self._process.start()

    def is_running(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float) -> bool:
        """Waits for its end at most so long; returns whether it came."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._process.kill()

    def end(self) -> Ended:
        """Waits for its end; kills what hangs."""
        if not self.wait(_LONGEST):
            self.kill()
            self._process.join()
        seconds = time.monotonic() - self._began
        paths = [self._own / name for name in _SAID]
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in paths)
        shutil.rmtree(self._own)
        status = self._process.exitcode
        assert status is not None
        return _logged(self._command, Ended(status, out, err, seconds))


def _run(command: Command, own: str) -> None:
    os.setsid()
    os.environ["TMPDIR"] = own
    tempfile.tempdir = None
    for number, name in enumerate(_SAID, 1):
        descriptor = os.open(f"{own}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    warnings.filterwarnings("ignore", ".* found in sys.modules after import", RuntimeWarning)
    sys.argv = [command.module, *command.flags]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)


def run(command: Command, folder: pathlib.Path) -> Ended:
    """Runs a command to its end."""
    return Program(command, folder).end()


def run_fresh(command: Command, **environment: str) -> Ended:
    """The same in a new interpreter."""
    began = time.monotonic()
    words = [sys.executable, "-m", command.module, *command.flags]
    surroundings = os.environ | environment
    done = subprocess.run(words, capture_output=True, text=True, timeout=_LONGEST, env=surroundings)
    ended = Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
    return _logged(command, ended)


def _logged(command: Command, ended: Ended) -> Ended:
    said = [words for words in ended.err.splitlines() if not _BAR.search(words) and words.strip()]
    _log.info("%s", "\n".join((f"{command.module}: status {ended.status}", *said)))
    return ended
