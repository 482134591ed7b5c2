"""One writer at a time: who writes a directory holds its lock file, and the next one is told who.

The kernel lets go of a lock (flock) when its holder ends, however it ends; where a file system has
none, the file itself is the lock, and one whose holder is dead on this machine is taken over.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
import time
from collections.abc import Iterator

from sitn_tf.errors import InputError

_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def beside(directory: pathlib.Path) -> pathlib.Path:
    """The lock file of a directory that is removed or renamed while it is held."""
    directory = pathlib.Path(os.path.abspath(directory))
    return directory.with_name(f".{directory.name}.lock")


@contextlib.contextmanager
def held(path: pathlib.Path, of: str) -> Iterator[None]:
    """Holds a lock file; it and the folders made for it, if nothing else is in them, go again.

    A full disk has room for an empty lock file, so that commands which free room run there.

    Args:
      of: what it locks, as an error names it: "output=DIR".

    Raises:
      InputError: somebody else holds it.
      OSError: it can't be made.
    """
    folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, of)
    try:
        yield
    finally:
        # Removed while it is held, so that it is nobody else's.
        with contextlib.suppress(OSError):
            path.unlink()
            for folder in folders:
                folder.rmdir()
        os.close(descriptor)


def _acquire(path: pathlib.Path, of: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_FLOCK:
                return _create(path, of)
            raise (_in_use(of, path) if isinstance(error, BlockingIOError) else error) from None
        # Who held it may have removed the file between the two calls.
        if _is_at(descriptor, path):
            with contextlib.suppress(OSError):  # it holds without its holder's name
                _sign(descriptor)
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _create(path: pathlib.Path, of: str) -> int:
    """The lock where there is no flock: the file with its holder's name in it."""
    holder = _read(path)
    here = holder.get("host") == socket.gethostname()
    if holder and not (here and _is_dead(int(holder["pid"]))):
        raise _in_use(of, path)
    path.unlink(missing_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise _in_use(of, path) from None
    try:
        _sign(descriptor)
    except OSError as error:
        # Without its holder's name it would be no lock.
        path.unlink()
        os.close(descriptor)
        error.filename = str(path)
        raise
    return descriptor


def _sign(descriptor: int) -> None:
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(_self()).encode())


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _self() -> dict[str, str | int]:
    program = getattr(sys.modules["__main__"], "__spec__", None)
    command = ["python", "-m", program.name] if program else sys.argv[:1]
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join([*command, *sys.argv[1:]]),
    }


def _read(path: pathlib.Path) -> dict[str, str | int]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and told.keys() >= _self().keys() else {}


def _in_use(of: str, path: pathlib.Path) -> InputError:
    holder = _read(path)
    who = "somebody who has just begun"
    if holder:
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        who += f" ({holder['command']})"
    return InputError(
        f"{of} is being written by {who}",
        "wait until it has ended, or stop it; it holds the lock " + str(path),
    )
