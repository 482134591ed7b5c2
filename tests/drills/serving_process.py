"""A directory of versions → a process that serves the newest two of them and tells its memory."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import pathlib
import time
from collections.abc import Iterator

from sitn_tf.errors import InputError
from tests.benchmarks.serving_memory import resident

POLL_SECONDS = 0.2
"""Between looks at the directory; export/serving/compose.yaml has 5."""
START_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Memory:
    """MB that are resident.

    Attributes:
      front: of the process that speaks gRPC.
      models: of the C++ processes that run the versions, by version.
    """

    front: float
    models: dict[int, float]


class ServingProcess:
    """The double (tests/export/serving_double.py) from outside: its address and its memory."""

    def __init__(self, pipe: multiprocessing.connection.Connection) -> None:
        self._pipe = pipe
        self.address: str = self._receive(START_SECONDS)

    def memory(self) -> Memory:
        self._pipe.send("memory")
        return self._receive(START_SECONDS)

    def _receive(self, seconds: float):
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"the serving process said nothing in {seconds:g} s")
        return self._pipe.recv()


@contextlib.contextmanager
def serving(servable: pathlib.Path) -> Iterator[ServingProcess]:
    """A fresh process that serves a directory until the block ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(servable, there), daemon=True)
    process.start()
    there.close()
    try:
        yield ServingProcess(here)
    finally:
        here.close()  # which is what the process ends at
        process.join(START_SECONDS)
        if process.is_alive():
            process.kill()


def _serve(servable: pathlib.Path, pipe: multiprocessing.connection.Connection) -> None:
    from sitn_tf import quiet

    quiet.import_tensorflow()
    from export import version_files
    from tests.export.serving_double import serve

    newest = servable / str(version_files.present(servable)[-1])
    with serve(newest) as (double, addresses):
        pipe.send(addresses["grpc"])
        last = time.monotonic()
        with contextlib.suppress(EOFError):
            while True:
                if pipe.poll(POLL_SECONDS):
                    pipe.recv()
                    models = {n: resident(s.pid)[0] for n, s in double.versions.items()}
                    pipe.send(Memory(resident(multiprocessing.current_process().pid)[0], models))
                if time.monotonic() - last > POLL_SECONDS:
                    # A version that was withdrawn while it loaded is not there at the next look.
                    with contextlib.suppress(InputError):
                        double.follow(servable)
                    last = time.monotonic()
