"""Command lines: flags in, exit status out.

Every runnable module owns a `flags.FlagValues` of its own, so that two commands
may define the same flag and still be imported into one process, and hands its
`main` to `run`, which turns the errors a user can mend into one line.
"""

import re
import shlex
import sys
from collections.abc import Callable, Sequence

from absl import flags

from sitn_tf import command_help, storage_errors
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
        told = " ".join(str(error).split())
        raise InputError(told, "" if told.endswith("?") else "see --help") from error
    if rest and not keep_unknown:
        raise InputError(f"unexpected argument {rest[0]!r}: flags are given as --name=value")
    return rest


def require(flag_values: flags.FlagValues, name: str) -> str:
    """The value of a flag that has no default; raises InputError where it was not given."""
    value = flag_values[name].value
    if not value:
        raise InputError(f"--{name} is missing", "see --help")
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


def run(
    main: Callable[[list[str]], int | None],
    flag_values: flags.FlagValues,
    *,
    keep_unknown: bool = False,
) -> None:
    """Parses `sys.argv`, calls `main(unknown_flags)` and exits with its status."""
    for asked, text in (
        (("--help", "-h"), command_help.screen),
        (("--helpfull",), command_help.whole),
    ):
        if any(word in sys.argv[1:] for word in asked):
            print(text(sys.modules["__main__"].__doc__ or "", flag_values))
            sys.exit(0)
    try:
        status = main(parse(flag_values, sys.argv, keep_unknown=keep_unknown))
    except InputError as error:
        print(f"error: {in_flags(error, flag_values)}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except Exception as error:
        told = storage_errors.in_one_line(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    sys.exit(status or 0)
