"""checksums.json of a directory: SHA-256 of its files, by relative path.

A data set has one, a stage-2 run its data set's for what it has copied, and vectors have one.
"""

import json
import pathlib
from collections.abc import Collection

from sitn_tf import schema, whole_files
from sitn_tf.errors import InputError, first_line

_REMEDY = "bring the file back, or have the directory made again"


def write(folder: pathlib.Path) -> None:
    """Writes the checksums of the files of a folder, without folders in it."""
    found = {p.name: whole_files.sha256(p) for p in sorted(folder.iterdir()) if p.is_file()}
    whole_files.write_json(folder / schema.CHECKSUMS_FILE, found)


def check(folder: pathlib.Path, parts: Collection[str] | None = None) -> None:
    """Whether files are as they were written, as far as the folder has checksums of them.

    Args:
      folder: a directory that has checksums, or may have.
      parts: its files, and folders with all in them, that are checked; None for all.

    Raises:
      InputError: a file is missing or another, or the checksums can't be read.
    """
    told = folder / schema.CHECKSUMS_FILE
    if not told.is_file():
        return
    try:
        expected = dict(json.loads(told.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{told} is damaged ({first_line(error)})", _REMEDY) from error
    for name, digest in expected.items():
        if parts is not None and name.partition("/")[0] not in parts:
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing", _REMEDY)
        if whole_files.sha256(path) != digest:
            raise InputError(f"{path} is damaged (its SHA-256 is not that of {told.name})", _REMEDY)
