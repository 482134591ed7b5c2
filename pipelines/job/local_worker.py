"""Worker processes of Beam's local runner, forked from a server that has imported what they need.

Beam starts a worker by a command, and tells it by environment variables where the runner is. Here
that command (`ask`) sends these variables to the server (`serve`) and ends when the worker ends.
So what takes longest in a small job, importing Beam, is paid once for all workers, and while the
launcher makes the pipeline. A worker tells only what goes wrong: Beam's own has some twenty lines
to say of each that comes and goes.
"""

import contextlib
import logging
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

_LONGEST_FOLDER = 80
"""Bytes of a socket's folder: its path may have some hundred."""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server for the block; the command of Beam that starts a worker of it."""
    usual = tempfile.gettempdir()
    short = usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else "/tmp"
    with (
        tempfile.TemporaryDirectory(dir=short) as folder,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        path = os.path.join(folder, "socket")
        listening.bind(path)
        listening.listen()
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.job.local_worker", "serve", str(number)],
            stdin=subprocess.PIPE, pass_fds=[number],
        )  # fmt: skip
        try:
            # Neither site-packages nor the project: a worker is asked for in a hundredth second.
            yield shlex.join([sys.executable, "-I", "-S", __file__, "ask", path])
        finally:
            process.communicate()


def ask(path: str) -> int:
    """Has a worker with this process's environment, and waits for its end; the exit status."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(b"\0".join(b"%s=%s" % pair for pair in os.environb.items()))
        asking.shutdown(socket.SHUT_WR)
        return 0 if asking.recv(1) else 1


def serve(listening: socket.socket) -> None:
    """Forks a worker for each process that asks, until standard input ends, as the launcher does.

    It has no thread and no channel of gRPC: what forks must have neither.
    """
    from apache_beam.runners.worker import sdk_worker_main  # noqa: F401

    from pipelines.job import build_records  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher's affair
    workers = []
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        asking, _ = listening.accept()
        with asking:
            worker = os.fork()
            if not worker:
                listening.close()
                _work(asking)
            workers.append(worker)
    for worker in workers:
        os.kill(worker, signal.SIGTERM)  # it has ended, or has lost its launcher
        os.waitpid(worker, 0)


def _work(asking: socket.socket) -> None:
    """A worker, from its fork to its end; says so to who asked for it."""
    from apache_beam.runners.worker import sdk_worker_main

    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with asking.makefile("rb") as stream:
            pairs = (entry.split(b"=", 1) for entry in stream.read().split(b"\0"))
            os.environb.update((name, value) for name, value in pairs)
        logging.basicConfig()
        for handler in logging.getLogger().handlers:
            handler.addFilter(is_news)
        sdk_worker_main.main([])
        asking.sendall(b"0")
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a user of the job wants to know."""
    return record.levelno >= logging.WARNING and "semi_persistent_dir" not in record.getMessage()


if __name__ == "__main__":
    _, role, where = sys.argv
    if role == "ask":
        sys.exit(ask(where))
    serve(socket.socket(fileno=int(where)))
