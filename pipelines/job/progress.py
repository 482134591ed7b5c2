"""How far a job is, told by the files its workers have written: any runner will do."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from pipelines.logs import files

_EVERY = 10.0


@contextlib.contextmanager
def printed(folder: str, blocks: int, shards: int) -> Iterator[None]:
    """Prints a line to standard error now and then while the job runs.

    Args:
      folder: where workers write.
      blocks: expected of the logs; shards: of users.
    """
    began, done = time.monotonic(), threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY):
            written = files.match(files.join(folder, "*"))
            text = line(written, blocks, shards, time.monotonic() - began)
            print(text, file=sys.stderr, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def line(written: Sequence[tuple[str, int]], blocks: int, shards: int, seconds: float) -> str:
    """What the files (path, bytes) say."""
    names = [(path.rsplit("/", 1)[-1], size) for path, size in written]
    parts = []
    for prefix, what, expected in (
        ("parsed-", "blocks parsed", blocks),
        ("sorted-target-", "shards sorted", shards),
        ("stage2-train-", "files of training records written", 0),
    ):
        sizes = [size for name, size in names if name.startswith(prefix)]
        if sizes:
            rate = sum(sizes) / 2**20 / seconds
            # how many blocks a gzipped file has is not known before
            of = f" of {expected:,}" if len(sizes) <= expected else ""
            parts.append(f"{len(sizes):,}{of} {what} ({rate:,.1f} MB/s)")
    return f"{seconds:,.0f} s: " + (", ".join(parts) or "starting")
