"""Programs that a test starts, waits for and ends, and environments that Beam's workers run in."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.ports import free_port

ROOT = pathlib.Path(__file__).parents[2]


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Until something listens; the process is the one that should."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def end(process: subprocess.Popen) -> None:
    """Kills a program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: pathlib.Path, said: pathlib.Path, around: dict[str, str]
) -> Iterator[subprocess.Popen]:
    """A program in a session of its own, ended afterwards.

    Args:
      command: its words.
      folder: where it runs.
      said: the file of what it says.
      around: environment variables beside this process's.
    """
    with said.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | around, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def packages() -> list[str]:
    """The folders of packages of this environment, which may itself see another's."""
    return [path for path in sys.path if path.endswith("site-packages")]


def environment(home: pathlib.Path, seen: Iterable[str]) -> pathlib.Path:
    """A Python environment that has nothing of its own; its site-packages.

    Args:
      home: where to make it.
      seen: folders of packages that it sees.
    """
    venv.create(home, with_pip=False)
    own = next((home / "lib").glob("python*/site-packages"))
    (own / "base.pth").write_text("\n".join(seen))
    return own


def project_environment(home: pathlib.Path) -> None:
    """An environment that has this one's packages, and the project as --setup_file packs it."""
    packed = home.with_name(f"{home.name}-packed")
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", f"--dist-dir={packed}"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    own = environment(home, packages())
    [archive] = packed.iterdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", f"--target={own}", archive],
        check=True,
    )  # fmt: skip


class WorkerPool(NamedTuple):
    """Beam's worker pool: what runs, and where it listens."""

    process: subprocess.Popen
    port: int

    def flags(self) -> list[str]:
        """What has a portable runner start its workers here."""
        return ["--environment_type=EXTERNAL", f"--environment_config=localhost:{self.port}"]

    def children(self) -> list[int]:
        """Ids of the workers that it has started."""
        told = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(child) for path in told for child in path.read_text().split()]


BEAMS_POOL = ("-m", "apache_beam.runners.worker.worker_pool_main")


@contextlib.contextmanager
def worker_pool(
    home: pathlib.Path, folder: pathlib.Path, program: Sequence[str] = BEAMS_POOL
) -> Iterator[WorkerPool]:
    """A worker pool in an environment.

    Args:
      home: the environment.
      folder: where it runs, and `workers.log` tells what it says.
      program: what Python is given to run it.
    """
    port = free_port()
    command = [str(home / "bin" / "python"), *program, f"--service_port={port}"]
    # the pool starts whatever "python" is on its path
    around = {"PATH": f"{home}/bin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    with running(command, folder, folder / "workers.log", around) as process:
        wait_for(port, process)
        yield WorkerPool(process, port)
