"""Files on any filesystem that Beam knows: paths are strings, bytes go in and out."""

import collections
import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
from apache_beam.io import filesystem, filesystems

from sitn_tf import whole_files
from sitn_tf.errors import InputError

INSTALL_GCP = "pip install 'apache-beam[gcp]'"
_EXTRAS = {"gs": INSTALL_GCP, "s3": "pip install 'apache-beam[aws]'",
           "azfs": "pip install 'apache-beam[azure]'"}  # fmt: skip
_Content = TypeVar("_Content")
_AT_ONCE = 16
"""Requests of one thread's work to an object store that are under way together."""
_RAW = filesystem.CompressionTypes.UNCOMPRESSED


def is_local(path: str) -> bool:
    return "://" not in path


def absolute(path: str) -> str:
    """A path that means the same wherever it is read."""
    return os.path.abspath(path) if is_local(path) else path


def check_reachable(field: str, path: str) -> None:
    """
    Raises:
      InputError: Beam knows no such filesystem, or has not got what it takes to ask it.
    """
    if is_local(path):
        return
    kind = path.split("://")[0]
    try:
        filesystems.FileSystems.get_filesystem(path)
        exists(path)
    except (ValueError, ImportError, OSError) as error:
        remedy = _EXTRAS.get(kind)
        raise InputError(
            f"{field}={path} can't be reached ({' '.join(str(error).split())}): "
            + (f"try {remedy}, and check your access" if remedy else "give a known filesystem")
        ) from error


def join(base: str, *parts: str) -> str:
    return cast(str, filesystems.FileSystems.join(base, *parts))


def attempt_path(folder: str, name: str) -> str:
    """A path no other attempt writes: a bundle that is run twice does no harm."""
    return join(folder, f"{name}-{uuid.uuid4().hex[:12]}")


def match(pattern: str) -> list[tuple[str, int]]:
    """(path, bytes) of the files a pattern matches, sorted by path; folders left out."""
    listed = filesystems.FileSystems.match([pattern])[0].metadata_list
    return sorted(
        (m.path, m.size_in_bytes)
        for m in listed
        if not (is_local(m.path) and os.path.isdir(m.path))
    )


def exists(path: str) -> bool:
    return cast(bool, filesystems.FileSystems.exists(path))


def make_folder(path: str) -> None:
    """Creates a folder; on an object store, where folders don't exist, nothing to do."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)


def reading(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Opens for reading the bytes as they are, compressed or not."""
    return _opened(path, "rb", filesystems.FileSystems.open)


def writing(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return _opened(path, "wb", filesystems.FileSystems.create)


@contextlib.contextmanager
def _opened(path: str, mode: str, elsewhere: Callable[..., Any]) -> Iterator[BinaryIO]:
    """A local file, or a stream from what opens files elsewhere; closed afterwards."""
    with (
        whole_files.naming(path),
        contextlib.closing(
            open(path, mode) if is_local(path) else elsewhere(path, compression_type=_RAW)
        ) as stream,
    ):
        yield cast(BinaryIO, stream)


def read_text(path: str) -> str:
    with reading(path) as stream:
        return stream.read().decode()


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> str:
    """Writes a whole file; its SHA-256."""
    with hashing(path) as stream:
        stream.write(content)
    return stream.sha256


@contextlib.contextmanager
def hashing(path: str) -> Iterator["Hashing"]:
    """As `writing`, a stream that knows the SHA-256 of what it wrote."""
    with writing(path) as stream:
        yield Hashing(stream)


class Hashing(io.RawIOBase):
    """A stream that passes on what is written to it, and hashes it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream, self._hash, self._size = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._stream.write(content)
        self._hash.update(content)
        written = memoryview(content).nbytes
        self._size += written
        return written

    def tell(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_table_batches(path: str, batches: list[pa.RecordBatch]) -> None:
    """Writes an Arrow IPC file whose batches can be read one by one."""
    with writing(path) as stream:
        _write_batches(stream, batches)


def write_table(path: str, table: pa.Table) -> str:
    """Writes a table as an Arrow IPC file, of one batch even where it has no rows; its SHA-256."""
    batches = table.combine_chunks().to_batches()
    with hashing(path) as stream:
        _write_batches(stream, batches or [pa.RecordBatch.from_pylist([], table.schema)])
    return stream.sha256


def _write_batches(stream: Any, batches: list[pa.RecordBatch]) -> None:
    with pa.ipc.new_file(stream, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_tables(tables: Sequence[tuple[str, pa.Table]]) -> dict[str, str]:
    """Writes (path, table) each by `write_table`; objects of a store at the same time.

    Returns:
      SHA-256 by path.
    """
    sums: dict[str, str] = {}

    def write_each(some: list[tuple[str, pa.Table]]) -> None:
        for path, table in some:
            sums[path] = write_table(path, table)

    write_each([one for one in tables if is_local(one[0])])
    _at_once(write_each, [one for one in tables if not is_local(one[0])])
    return sums


def sha256(path: str) -> str:
    """Of a file's content, read in pieces."""
    with reading(path) as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


AS_WRITTEN = "bring it back as it was written, or build the data set again"


def check_sha256(path: str, expected: str) -> None:
    """
    Raises:
      InputError: a file is not there, or not as it was written.
    """
    with _missing_is_told(path):
        actual = sha256(path)
    _check_as_written(path, actual, expected)


@contextlib.contextmanager
def _missing_is_told(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", AS_WRITTEN) from error


def _check_as_written(path: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise InputError(f"{path} is damaged: it has not its checksum", AS_WRITTEN)


def read_table_batches(path: str, which: list[int] | None = None, checksum: str = "") -> pa.Table:
    """Reads the batches `which` (all by default) of an Arrow IPC file.

    Args:
      checksum: SHA-256 of the file, which is then read as a whole, once.

    Raises:
      InputError: the file is not there, or has not the checksum that is given.
    """
    if checksum:
        with _missing_is_told(path), reading(path) as stream:
            content = stream.read()
        _check_as_written(path, hashlib.sha256(content).hexdigest(), checksum)
        return _batches(pa.BufferReader(content), which)
    with reading(path) as stream:
        return _batches(stream, which)


def _batches(stream: Any, which: list[int] | None) -> pa.Table:
    reader = pa.ipc.open_file(stream)
    wanted = range(reader.num_record_batches) if which is None else which
    return pa.Table.from_batches([reader.get_batch(i) for i in wanted], reader.schema)


def ahead(
    read: Callable[[str], _Content], paths: Iterable[str], at_once: int = _AT_ONCE
) -> Iterator[_Content]:
    """What `read` makes of each path, in order.

    Up to `at_once` objects of a store, whose requests take long, are read at the same time and
    wait in memory for their turn; local files are read when asked for.
    """
    coming: collections.deque[concurrent.futures.Future[_Content]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        try:
            for path in paths:
                if is_local(path):
                    yield read(path)
                    continue
                coming.append(threads.submit(read, path))
                if len(coming) == at_once:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()


def rename(old: str, new: str) -> None:
    """Moves one file into a folder that is made."""
    rename_all([(old, new)])


def rename_all(moves: Sequence[tuple[str, str]]) -> None:
    """Moves files, (old, new) each, into folders that are made; objects of a store many at once."""
    for folder in {os.path.dirname(new) for _, new in moves}:
        make_folder(folder)
    local = [move for move in moves if is_local(move[0])]
    for old, new in local:
        os.rename(old, new)
    elsewhere = [move for move in moves if not is_local(move[0])]
    _at_once(_rename_elsewhere, elsewhere)


def _rename_elsewhere(moves: list[tuple[str, str]]) -> None:
    filesystems.FileSystems.rename([old for old, _ in moves], [new for _, new in moves])


def _at_once(act: Callable[[list[Any]], None], objects: Sequence[Any]) -> None:
    """Lets some threads share objects; the store's own client may take many in one request."""
    parts = [part for i in range(_AT_ONCE) if (part := list(objects[i::_AT_ONCE]))]
    if len(parts) <= 1:
        for part in parts:
            act(part)
        return
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(act, parts))  # raises what any has raised


def delete_file(path: str) -> None:
    filesystems.FileSystems.delete([path])


def delete_tree(path: str) -> None:
    """Deletes a folder; on an object store everything under its name."""
    if is_local(path):
        shutil.rmtree(path)
    else:
        _at_once(filesystems.FileSystems.delete, [name for name, _ in match(join(path, "**"))])


def rename_tree(old: str, new: str) -> None:
    if is_local(old):
        os.rename(old, new)
        return
    names = [name for name, _ in match(join(old, "**"))]
    rename_all([(name, new + name.removeprefix(old)) for name in names])


def holds_files(path: str) -> bool:
    """Whether a path is there: as a file, as a folder or, on an object store, as a prefix."""
    return exists(path) or (not is_local(path) and bool(match(join(path, "**"))))
