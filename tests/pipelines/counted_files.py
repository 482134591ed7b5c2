"""count://..., an object store in memory that counts what is asked of it.

It is for the local runner in this process; workers elsewhere would not see it.
"""

import collections
import io
import threading
import time

from apache_beam.io import filesystem

from tests.pipelines.object_names import ObjectNames


class Store:
    """The objects by their whole names, and how often which operation was asked for.

    `waited` has by thread how many operations it waited for, one after another: each takes `delay`
    seconds.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.waited: collections.Counter[int] = collections.Counter()
        self.delay = 0.0
        self.lock = threading.Lock()

    def clear(self) -> None:
        self.objects.clear()
        self.counts.clear()
        self.waited.clear()

    def count(self, operation: str) -> None:
        with self.lock:
            self.counts[operation] += 1
            self.waited[threading.get_ident()] += 1
        if self.delay:
            time.sleep(self.delay)

    def count_bytes(self, what: str, size: int) -> None:
        with self.lock:
            self.counts[what] += size


STORE = Store()
BUFFER_BYTES = 1 << 12
"""Asked for at once: less than a block, as of a bucket."""


class _Reading(io.RawIOBase):
    """An object's bytes; each read is a request for a range, as of a bucket."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()

    def readinto(self, buffer) -> int:
        size = self._content.readinto(buffer)
        STORE.count("reads")
        STORE.count_bytes("bytes read", size)
        return size


class _Writing(io.BytesIO):
    """Bytes that become an object when closed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def close(self) -> None:
        if not self.closed:
            STORE.count_bytes("bytes written", len(self.getvalue()))
            STORE.objects[self._name] = self.getvalue()
        super().close()


class CountedFiles(ObjectNames, filesystem.FileSystem):
    """Beam's interface to `STORE`."""

    @classmethod
    def scheme(cls) -> str:
        return "count"

    def all_names(self):
        return STORE.objects

    def move(self, old, new):
        STORE.count("renames")
        STORE.objects[new] = STORE.objects.pop(old)

    def remove(self, name):
        STORE.count("deletes")
        del STORE.objects[name]

    def _list(self, prefix):
        STORE.count("lists")
        yield from super()._list(prefix)

    def create(self, path, mime_type="", compression_type="auto"):
        STORE.count("creates")
        return _Writing(path)

    def open(self, path, mime_type="", compression_type="auto"):
        STORE.count("opens")
        return io.BufferedReader(_Reading(STORE.objects[path]), BUFFER_BYTES)

    def exists(self, path):
        STORE.count("looks")
        return path in STORE.objects

    def size(self, path):
        return len(STORE.objects[path])
