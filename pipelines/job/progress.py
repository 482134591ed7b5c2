"""How far a job is, told by the files its workers have written: any runner will do."""

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from pipelines.logs import files

_STEPS = (("parsed-", "blocks parsed"), ("sorted-target-", "shards sorted"),
          ("stage2-train-", "shards written"))  # fmt: skip


class Progress:
    """Prints a line now and then while the job runs, to standard error.

    Attributes:
      folder: where workers write.
      expected: blocks of logs, shards.
    """

    def __init__(self, folder: str, blocks: int, shards: int, every: float = 10.0) -> None:
        self._folder, self._every = folder, every
        self._expected = (blocks, shards, shards)
        self._began = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            written = files.match(files.join(self._folder, "*"))
            print(self.line(written, time.monotonic() - self._began), file=sys.stderr, flush=True)

    def line(self, written: Sequence[tuple[str, int]], seconds: float) -> str:
        """What the files (path, bytes) say."""
        names = [(path.rsplit("/", 1)[-1], size) for path, size in written]
        parts = []
        for (prefix, what), expected in zip(_STEPS, self._expected, strict=True):
            sizes = [size for name, size in names if name.startswith(prefix)]
            if sizes:
                rate = sum(sizes) / 2**20 / seconds
                # how many blocks a gzipped file has is not known before
                of = f" of {expected:,}" if len(sizes) <= expected else ""
                parts.append(f"{len(sizes):,}{of} {what} ({rate:,.1f} MB/s)")
        return f"{seconds:,.0f} s: " + (", ".join(parts) or "starting")
