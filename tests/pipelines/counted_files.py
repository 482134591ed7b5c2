"""count://..., an object store in memory that counts what is asked of it.

It is for the local runner in this process; workers elsewhere would not see it.
"""

import collections
import io
import threading

from apache_beam.io import filesystem


class Store:
    """The objects by their whole names, and how often which operation was asked for."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()

    def clear(self) -> None:
        self.objects.clear()
        self.counts.clear()

    def count(self, operation: str, times: int = 1) -> None:
        with self.lock:
            self.counts[operation] += times


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
        STORE.count("bytes read", size)
        return size


class _Writing(io.BytesIO):
    """Bytes that become an object when closed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def close(self) -> None:
        if not self.closed:
            STORE.count("bytes written", len(self.getvalue()))
            STORE.objects[self._name] = self.getvalue()
        super().close()


class CountedFiles(filesystem.FileSystem):
    """Beam's interface to `STORE`: names with slashes, and no folders."""

    @classmethod
    def scheme(cls) -> str:
        return "count"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        raise NotImplementedError("an object store has no folders")

    def _names(self, prefix):
        return sorted(name for name in STORE.objects if name.startswith(prefix))

    def _list(self, prefix):
        STORE.count("lists")
        for name in self._names(prefix):
            yield filesystem.FileMetadata(name, len(STORE.objects[name]))

    def create(self, path, mime_type="", compression_type="auto"):
        STORE.count("creates")
        return _Writing(path)

    def open(self, path, mime_type="", compression_type="auto"):
        STORE.count("opens")
        return io.BufferedReader(_Reading(STORE.objects[path]), BUFFER_BYTES)

    def rename(self, sources, destinations):
        for old, new in zip(sources, destinations, strict=True):
            for name in self._names(old) if old.endswith("/") else [old]:
                STORE.count("renames")
                STORE.objects[name.replace(old, new, 1)] = STORE.objects.pop(name)

    def exists(self, path):
        STORE.count("looks")
        return path in STORE.objects

    def delete(self, paths):
        for path in paths:
            for name in self._names(path) if path.endswith("/") else [path]:
                STORE.count("deletes")
                del STORE.objects[name]

    def copy(self, sources, destinations):
        raise NotImplementedError

    def size(self, path):
        return len(STORE.objects[path])

    def last_updated(self, path):
        raise NotImplementedError

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return filesystem.FileMetadata(path, self.size(path))
