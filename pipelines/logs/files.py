"""Files on any filesystem that Beam knows: paths are strings, bytes go in and out."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
from apache_beam.io import filesystem, filesystems

from sitn_tf import whole_files
from sitn_tf.errors import InputError

INSTALL_GCP = "pip install 'apache-beam[gcp]'"
_EXTRAS = {"gs": INSTALL_GCP, "s3": "pip install 'apache-beam[aws]'",
           "azfs": "pip install 'apache-beam[azure]'"}  # fmt: skip
_RAW = filesystem.CompressionTypes.UNCOMPRESSED


def is_local(path: str) -> bool:
    return "://" not in path


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
    with writing(path) as stream:
        stream.write(content)
    return hashlib.sha256(content).hexdigest()


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_table_batches(path: str, batches: list[pa.RecordBatch]) -> None:
    """Writes an Arrow IPC file whose batches can be read one by one."""
    with writing(path) as stream, pa.ipc.new_file(stream, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC file, of one batch even where it has no rows."""
    batches = table.combine_chunks().to_batches()
    write_table_batches(path, batches or [pa.RecordBatch.from_pylist([], table.schema)])


def read_table_batches(path: str, which: list[int] | None = None) -> pa.Table:
    """Reads the batches `which` (all by default) of an Arrow IPC file."""
    with reading(path) as stream:
        reader = pa.ipc.open_file(stream)
        wanted = range(reader.num_record_batches) if which is None else which
        return pa.Table.from_batches([reader.get_batch(i) for i in wanted], reader.schema)


def rename(old: str, new: str) -> None:
    """Moves one file into a folder that is there."""
    make_folder(os.path.dirname(new))
    if is_local(old):
        os.rename(old, new)
    else:
        filesystems.FileSystems.rename([old], [new])


def delete_file(path: str) -> None:
    filesystems.FileSystems.delete([path])


def delete_tree(path: str) -> None:
    """Deletes a folder; on an object store everything under its name."""
    if is_local(path):
        shutil.rmtree(path)
    elif holds_files(path):
        filesystems.FileSystems.delete([f"{path}/"])


def rename_tree(old: str, new: str) -> None:
    if is_local(old):
        os.rename(old, new)
    else:
        filesystems.FileSystems.rename([f"{old}/"], [f"{new}/"])


def holds_files(path: str) -> bool:
    """Whether a path is there: as a file, as a folder or, on an object store, as a prefix."""
    return exists(path) or (not is_local(path) and bool(match(join(path, "**"))))
