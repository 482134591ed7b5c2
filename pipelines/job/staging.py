"""A data set directory that becomes visible only when whole, whatever stops its job."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator

from pipelines.logs import files
from sitn_tf import locks, schema
from sitn_tf.errors import InputError

_STAMP = "[0-9a-f]{8}"


def check_place(output: str, *, overwrite: bool) -> None:
    """
    Raises:
      InputError: there is something already or, to be overwritten, something that is neither a
        data set nor an empty folder.
    """
    if not files.holds_files(output):
        return
    if not overwrite:
        raise _already_there(output)
    if not _replaceable(output):
        raise InputError(
            f"output={output} is not a data set, and only one is overwritten",
            "give another, or remove what is there",
        )


def _already_there(output: str) -> InputError:
    if _replaceable(output):
        return InputError(f"output={output} is there already", "give overwrite=True or another")
    return InputError(f"output={output} is there already and is no data set", "give another")


def _replaceable(output: str) -> bool:
    """Whether what is there is a data set, of this version or another, or a folder of nothing."""
    if files.is_local(output) and os.path.isdir(output) and not os.listdir(output):
        return True
    try:
        manifest = json.loads(files.read_text(files.join(output, schema.MANIFEST_FILE)))
    except (OSError, ValueError):  # none, or not to be read
        return False
    return isinstance(manifest, dict) and {"schema_version", "dataset_hash"} <= manifest.keys()


def check_apart(output: str, inputs: Iterable[str]) -> None:
    """
    Raises:
      InputError: a file of the inputs lies at the output, and would go when it is overwritten.
    """
    folder = _resolved(output).rstrip("/") + "/"
    for path in inputs:
        if (_resolved(path) + "/").startswith(folder):
            raise InputError(f"output={output} holds {path}, which is to be read", "give another")


def _resolved(path: str) -> str:
    return os.path.realpath(path) if files.is_local(path) else path


def _not_writable(output: str, error: OSError) -> InputError:
    return InputError(
        f"output={output} can't be written ({error.strerror or error}): "
        "give a folder that you may write to"
    )


@contextlib.contextmanager
def staging(output: str) -> Iterator[str]:
    """A folder beside the output that is gone afterwards, unless the process is killed.

    Raises:
      InputError: it can't be written to.
    """
    root = f"{output}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        files.make_folder(root)
    except OSError as error:
        raise _not_writable(output, error) from error
    try:
        yield root
    finally:
        with contextlib.suppress(OSError):  # it has moved to its place
            files.delete_tree(root)


@contextlib.contextmanager
def locked(output: str) -> Iterator[None]:
    """No other job makes this output meanwhile; on an object store there are no locks.

    Raises:
      InputError: another one does, or it can't be written to.
    """
    with contextlib.ExitStack() as stack:
        if files.is_local(output):
            lock = locks.held(locks.beside(pathlib.Path(output)), f"output={output}")
            try:
                stack.enter_context(lock)
            except OSError as error:
                raise _not_writable(output, error) from error
        yield


def clear_leftovers(output: str) -> None:
    """Removes what killed jobs left behind and puts back what one replaced; see `locked`."""
    if not files.is_local(output):
        return
    folder = os.path.dirname(os.path.abspath(output))
    name = re.escape(os.path.basename(output))
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if re.fullmatch(rf"{name}\.old-{_STAMP}", entry) and not os.path.exists(output):
            os.rename(path, output)
        elif re.fullmatch(rf"{name}\.(old|tmp)-{_STAMP}", entry):
            shutil.rmtree(path, ignore_errors=True)


def publish(root: str, output: str, manifest: schema.Manifest, *, overwrite: bool) -> None:
    """The finished folder gets its name; what was there is removed only then.

    Another job may have finished since this one looked, so it looks again.
    An object store has no folder to rename: there the manifest, without which nothing is a
    data set, is written when all other files are in place.

    Raises:
      InputError: the name is taken and not to be overwritten.
    """
    check_place(output, overwrite=overwrite)
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
