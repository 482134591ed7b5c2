"""Processes of a cluster on loopback, each with its own TF_CONFIG."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from tests.ports import free_ports

TRAIN = "tests.sitn_tf.distributed.small_shards"
"""`sitn_tf.train` that cuts even tiny tables, which it leaves whole."""


class Cluster:
    """Addresses of some tasks of each type, and the processes that were started at them.

    Args:
      folder: for what the processes say: <job>-<task>.txt, the later ones of a task behind the
        earlier.
      **tasks: how many of each type.
    """

    def __init__(self, folder: pathlib.Path, **tasks: int) -> None:
        ports = iter(free_ports(sum(tasks.values())))
        self.addresses = {
            job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in tasks.items()
        }
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started: dict[tuple[str, int], subprocess.Popen] = {}

    def start(self, job: str, task: int, *command: str) -> subprocess.Popen:
        """Starts `python -m <command>` as one of the tasks."""
        own = {"cluster": self.addresses, "task": {"type": job, "index": task}}
        environment = os.environ | {"TF_CONFIG": json.dumps(own), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self.file(job, task).open("a") as said:
            self.started[job, task] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment | {"CUDA_VISIBLE_DEVICES": ""},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        return self.started[job, task]

    def start_all(self, *command: str) -> None:
        """Starts the same command as every task."""
        for job, addresses in self.addresses.items():
            for task in range(len(addresses)):
                self.start(job, task, *command)

    def kill(self, job: str, task: int) -> None:
        """Kills a task's process with SIGKILL, and waits for its end."""
        self.started[job, task].kill()
        self.started[job, task].wait()

    def wait(self, seconds: float = 600) -> dict[tuple[str, int], int]:
        """The exit statuses of all tasks' last processes."""
        return {who: process.wait(seconds) for who, process in self.started.items()}

    def wait_for(self, pattern: str, job: str = "chief", seconds: float = 600) -> None:
        """Returns when the first task of a type has said something; fails when it ends before."""
        process, deadline = self.started[job, 0], time.monotonic() + seconds
        while not re.search(pattern, self.said(job)):
            assert process.poll() is None, self.said(job)
            assert time.monotonic() < deadline, self.said(job)
            time.sleep(0.05)

    def file(self, job: str, task: int) -> pathlib.Path:
        return self.folder / f"{job}-{task}.txt"

    def said(self, job: str, task: int = 0) -> str:
        """What a task has said so far."""
        return self.file(job, task).read_text()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started.values():
            process.kill()
            process.wait()
