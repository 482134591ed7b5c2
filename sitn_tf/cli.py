"""Command lines: flags in, exit status out.

Every runnable module owns a `flags.FlagValues` of its own, so that two commands
may define the same flag and still be imported into one process, and hands its
`main` to `run`, which turns the errors a user can mend into one line.
"""

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence

from absl import flags

from sitn_tf import command_help
from sitn_tf.errors import InputError

USER_ERROR_STATUS = 2


def parse(
    flag_values: flags.FlagValues, argv: Sequence[str], *, keep_unknown: bool = False
) -> list[str]:
    """Parses `argv` (program name first) and returns what is not a known flag.

    Raises:
      InputError: an unknown flag (unless `keep_unknown`), a bad value, or a stray
        positional argument.
    """
    try:
        rest = flag_values(argv, known_only=keep_unknown)[1:]
    except flags.Error as error:
        raise InputError(" ".join(str(error).split())) from error
    if rest and not keep_unknown:
        raise InputError(f"unexpected argument {rest[0]!r}: flags are given as --name=value")
    return rest


def require(flag_values: flags.FlagValues, name: str) -> str:
    """The value of a flag that has no default; raises InputError where it was not given."""
    value = flag_values[name].value
    if not value:
        raise InputError(f"--{name} is missing")
    return value


def command(flag_values: flags.FlagValues, module: str) -> str:
    """The command that gives these flags: `python -m sitn_tf.train --stage=2`."""
    given = [flag_values[name].serialize() for name in flag_values if flag_values[name].present]
    words = [word for text in given for word in text.split("\n")]
    return shell(module, *words)


def shell(module: str, *words: str) -> str:
    """The command of a module, as a shell takes it whatever its words hold."""
    return shlex.join(["python", "-m", module, *words])


_SETTING = re.compile(r"(?<![\w./=-])([a-z]\w*\.[a-z]\w*=)")


def in_flags(error: InputError, flag_values: flags.FlagValues) -> InputError:
    """An error of a library in the words of a command: `init=RUN` as `--init=RUN`.

    A boolean becomes `--overwrite` or `--nooverwrite`; in the remedy of a command that has
    --set, `section.field=value` becomes `--set section.field=value`.
    """
    named = re.compile(rf"(?<![\w./=-])({'|'.join(map(re.escape, flag_values))})=(\w*)")

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if flag_values[name].boolean and value in ("True", "False"):
            return f"--{'' if value == 'True' else 'no'}{name}"
        return f"--{name}={value}"

    message, remedy = (named.sub(flag, text) for text in (error.message, error.remedy))
    if "set" in flag_values:
        remedy = _SETTING.sub(r"--set \1", remedy)
    return InputError(message, remedy)


_NO_ROOM = "free some room or write to another disk, then give the command again"
_MAY_NOT = "give a directory that you may write to"
_STORAGE = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EROFS: _MAY_NOT,
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.ENOENT: "if it was removed meanwhile, give the command again",
}
"""What to do about errors of a disk."""


_PYTHON_SAYS = re.compile(r"\[Errno (\d+)\] [^:\]]*(?:: '([^']+)'(?: -> '([^']+)')?)?")
_BEAM_SAYS = re.compile(r"Encountered exceptions in finalize_write: .*?Error\((\d+), '")
"""A plain Exception, where finished files are given their names."""
_BEAM_MISSES = re.compile(r"src and dst files do not exist\. src: \S+, dst: (.*?) with exceptions")
_TENSORFLOW_SAYS = re.compile(rf"(/[^\s;]+); ({'|'.join(map(os.strerror, _STORAGE))})")


def of_storage(error: Exception, unnamed: str = "") -> str | None:
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
    if said and (said[2] or int(said[1]) in _STORAGE):
        number, first, second = said.groups()  # the second was to be written
        return _of_disk(second or first or unnamed, int(number), os.strerror(int(number)))
    if said := _TENSORFLOW_SAYS.search(str(error)):
        numbers = {os.strerror(number): number for number in _STORAGE}
        return _of_disk(said[1], numbers[said[2]], said[2])
    return None


def _is_of_tensorflow(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "tensorflow"


def _of_disk(name: str | None, number: int, words: str) -> str:
    return ": ".join(filter(None, (name, words, _STORAGE.get(number))))


def run(
    main: Callable[[list[str]], int | None],
    flag_values: flags.FlagValues,
    *,
    keep_unknown: bool = False,
) -> None:
    """Parses `sys.argv`, calls `main(unknown_flags)` and exits with its status."""
    for asked, text in (("--help", command_help.screen), ("--helpfull", command_help.whole)):
        if asked in sys.argv[1:]:
            print(text(sys.modules["__main__"].__doc__ or "", flag_values))
            sys.exit(0)
    try:
        status = main(parse(flag_values, sys.argv, keep_unknown=keep_unknown))
    except InputError as error:
        print(f"error: {in_flags(error, flag_values)}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except Exception as error:
        told = of_storage(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    sys.exit(status or 0)
