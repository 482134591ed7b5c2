"""Files and directories that are whole or absent, whenever the process dies."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sitn_tf import locks


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with naming(path):
        temporary.write_bytes(content)
        temporary.replace(path)


def write_rows(path: pathlib.Path, parts: Iterable[np.ndarray], rows: int) -> None:
    """The file that `numpy.save` makes of all parts as one array, which is never made.

    A full disk is told as one: NumPy writes into files by a function of C's that loses the number.

    Args:
      parts: one at least, `[., ...]` of the same dtype and shape but for the number of rows.
      rows: of all parts together.
    """
    with naming(path), path.open("wb") as file:
        for number, part in enumerate(map(np.ascontiguousarray, parts)):
            if not number:
                kept = np.lib.format.header_data_from_array_1_0(part)
                shape = (rows, *part.shape[1:])
                np.lib.format.write_array_header_1_0(file, kept | {"shape": shape})
            file.write(part.data)


@contextlib.contextmanager
def naming(path: str | pathlib.Path) -> Iterator[None]:
    """What the system says of a file that is open, such as a full disk, gets the file's name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory to fill, which takes its name when the block ends without an error.

    What a killed process left of it is removed.

    Raises:
      InputError: another process makes it.
      OSError: there is something at `path` by then.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with locks.held(locks.beside(path), str(path)):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            with naming(path):
                yield unfinished
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def sha256(path: pathlib.Path) -> str:
    """Of a file's content, in hexadecimal digits; read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
