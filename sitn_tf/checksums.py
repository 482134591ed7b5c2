"""checksums.json of a data set, and of a run with what it has copied: SHA-256 by relative path."""

import hashlib
import json
import pathlib

from sitn_tf import schema
from sitn_tf.errors import InputError, first_line

_REMEDY = "bring the file back, or build the data set again, or train again if it is a run's"


def check(folder: pathlib.Path, parts: tuple[str, ...]) -> None:
    """Whether files are as they were built, as far as the folder has checksums of them.

    Args:
      folder: a data set or run directory.
      parts: its folders whose files are checked.

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
        if name.partition("/")[0] not in parts:
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing", _REMEDY)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise InputError(
                    f"{path} is damaged (its SHA-256 is not that of {told.name})", _REMEDY
                )
