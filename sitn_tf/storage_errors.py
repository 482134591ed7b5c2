"""Errors of a disk that is full, read-only or gone → one line with the file and the remedy."""

import errno
import os
import re

_NO_ROOM = "free some room or write to another disk, then give the command again"
_MAY_NOT = "give a directory that you may write to"
_OTHER = "give another: a file is where a directory has to be, or the other way round"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EROFS: _MAY_NOT,
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.EEXIST: _OTHER,
    errno.ENOTDIR: _OTHER,
    errno.EISDIR: _OTHER,
    errno.ENOENT: "if it was removed meanwhile, give the command again",
}
"""By the system's number."""

_PYTHON_SAYS = re.compile(r"\[Errno (\d+)\] [^:\]]*(?:: '([^']+)'(?: -> '([^']+)')?)?")
_BEAM_SAYS = re.compile(r"Encountered exceptions in finalize_write: .*?Error\((\d+), '")
"""A plain Exception, where finished files are given their names."""
_BEAM_MISSES = re.compile(r"src and dst files do not exist\. src: \S+, dst: (.*?) with exceptions")
_TENSORFLOW_SAYS = re.compile(rf"(/[^\s;]+); ({'|'.join(map(os.strerror, _REMEDIES))})")


def in_one_line(error: Exception, unnamed: str = "") -> str | None:
    """What a disk that is full, read-only or gone has to say to people, None of other errors.

    Beam's and TensorFlow's errors have the file and the system's number or words in their text
    only, in Python's form and in that of TensorFlow's file systems.

    Args:
      unnamed: what was written where the error does not say, as Beam's of an open file.
    """
    if isinstance(error, OSError) and error.filename is not None:
        name = error.filename2 or error.filename
        return _of_disk(str(name), error.errno or 0, error.strerror or "")
    if said := _BEAM_SAYS.search(str(error)):
        return _of_disk(unnamed, int(said[1]), os.strerror(int(said[1])))
    if not (isinstance(error, OSError | RuntimeError) or _is_of_tensorflow(error)):
        return None
    if said := _BEAM_MISSES.search(str(error)):
        return _of_disk(unnamed or said[1], errno.ENOENT, os.strerror(errno.ENOENT))
    said = _PYTHON_SAYS.search(str(error))
    if said and (said[2] or int(said[1]) in _REMEDIES):
        number, first, second = said.groups()  # the second was to be written
        return _of_disk(second or first or unnamed, int(number), os.strerror(int(number)))
    if said := _TENSORFLOW_SAYS.search(str(error)):
        numbers = {os.strerror(number): number for number in _REMEDIES}
        return _of_disk(said[1], numbers[said[2]], said[2])
    return None


def _is_of_tensorflow(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "tensorflow"


def _of_disk(name: str | None, number: int, words: str) -> str:
    return ": ".join(filter(None, (name, words, _REMEDIES.get(number))))
