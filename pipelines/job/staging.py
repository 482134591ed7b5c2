"""A data set directory that becomes visible only when whole, whatever stops its job."""

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator

from pipelines.logs import files
from sitn_tf import schema
from sitn_tf.errors import InputError

_OWNER_FILE = "owner.json"


def check_free(output: str) -> None:
    """
    Raises:
      InputError: there is something already.
    """
    if files.holds_files(output):
        raise _already_there(output)


def _already_there(output: str) -> InputError:
    return InputError(f"output={output} is there already: give overwrite=True or another")


@contextlib.contextmanager
def staging(output: str) -> Iterator[str]:
    """A folder beside the output that is gone afterwards, unless the process is killed.

    Raises:
      InputError: it can't be written to.
    """
    root = f"{output}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        files.make_folder(root)
        files.write_json(
            files.join(root, _OWNER_FILE), {"host": socket.gethostname(), "pid": os.getpid()}
        )
    except OSError as error:
        with contextlib.suppress(OSError):
            files.delete_tree(root)
        raise InputError(
            f"output={output} can't be written ({error.strerror or error}): "
            "give a folder that you may write to"
        ) from error
    try:
        yield root
    finally:
        with contextlib.suppress(OSError):  # it has moved to its place
            files.delete_tree(root)


def clear_leftovers(output: str) -> None:
    """Removes what killed runs for this output left behind, and puts back what one replaced."""
    if not files.is_local(output):
        return
    folder = os.path.dirname(os.path.abspath(output))
    name = os.path.basename(output)
    for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, entry)
        if entry.startswith(f"{name}.tmp-") and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
        elif entry.startswith(f"{name}.old-"):
            if os.path.exists(output):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.rename(path, output)


def _is_abandoned(path: str) -> bool:
    """Whether the process that owned a staging folder is gone; if unknown, it is not."""
    try:
        with open(os.path.join(path, _OWNER_FILE)) as file:
            owner = json.load(file)
        if owner["host"] != socket.gethostname():
            return False
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def publish(root: str, output: str, manifest: schema.Manifest, *, overwrite: bool) -> None:
    """The finished folder gets its name; what was there is removed only then.

    Another job may have finished since this one looked, so it looks again.
    An object store has no folder to rename: there the manifest, without which nothing is a
    data set, is written when all other files are in place.

    Raises:
      InputError: the name is taken and not to be overwritten.
    """
    files.delete_file(files.join(root, _OWNER_FILE))
    if not overwrite:
        check_free(output)
    if files.is_local(output):
        files.write_text(files.join(root, schema.MANIFEST_FILE), manifest.to_json())
        old = f"{output}.old-{uuid.uuid4().hex[:8]}"
        if overwrite and os.path.exists(output):
            os.rename(output, old)
        try:
            os.rename(root, output)
        except OSError as error:
            if os.path.exists(output):  # another job was quicker by less than a moment
                raise _already_there(output) from error
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
    files.delete_tree(output)
    files.rename_tree(root, output)
    files.write_text(files.join(output, schema.MANIFEST_FILE), manifest.to_json())
