"""One writer at a time: who writes a directory holds its lock file, and the next one is told who.

The kernel lets go of a lock (flock) when its holder ends, however it ends; where a file system has
none, the file itself is the lock, and one whose holder is dead on this machine is taken over. That
needs hard links: where there are neither, nothing can be held, which is an error.
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
import uuid
from collections.abc import Iterator

from sitn_tf.errors import InputError

_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


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
    """The lock where there is no flock: the file with its holder's name in it.

    It is signed under a name of its own and then linked to the lock's, which fails where that is
    taken: nobody sees a lock without its holder.
    """
    own = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}")
    _make_way(path, own)
    descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _sign(descriptor)
        os.link(own, path)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, FileExistsError):
            raise _in_use(of, path) from None
        if error.errno in _NO_LINKS:
            raise InputError(
                f"{of} can't be locked: the file system of {path} has neither flock nor links",
                "write to another one, and copy from there",
            ) from error
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        own.unlink()
    return descriptor


def _make_way(path: pathlib.Path, aside: pathlib.Path) -> None:
    """Removes a lock that holds nothing.

    It is renamed and looked at again: in the meantime somebody else may have taken its place, and
    theirs is put back.

    Args:
      aside: a free name of this process's own.
    """
    if not _holds_nothing(path):
        return
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if not _holds_nothing(aside):
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _holds_nothing(path: pathlib.Path) -> bool:
    """Whether a lock file names nobody, as one that was opened to try flock, or one who is dead."""
    holder = _read(path)
    here = holder.get("host") == socket.gethostname()
    return not holder or (here and _is_dead(int(holder["pid"])))


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
