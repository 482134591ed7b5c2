"""What a command leaves to Beam → Beam's options; a flag that neither has is refused."""

import contextlib
import difflib
import io
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from sitn_tf.errors import InputError

_LOGGER = "apache_beam.options.pipeline_options"
"""Warns of a flag that Beam does not have, and goes on without it."""


def options(arguments: Sequence[str], own: Iterable[str]) -> PipelineOptions:
    """Beam's options.

    Args:
      arguments: that the command has left.
      own: names of the command's own flags, to tell what was meant.

    Raises:
      InputError: an unknown flag, or a value that Beam does not accept.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _silent(_LOGGER):
            parsed = PipelineOptions(list(arguments))
            known = set(parsed.get_all_options())
    except SystemExit as error:  # argparse prints its usage, of some hundred lines, and exits
        raise InputError(complaint.getvalue().strip().rsplit("error: ", 1)[-1]) from error
    _check_known(arguments, known, own)
    return parsed


def _check_known(arguments: Sequence[str], known: Collection[str], own: Iterable[str]) -> None:
    """
    Raises:
      InputError: a flag that neither this command nor Beam has, or what is no flag at all.
    """
    takes_value = False
    for argument in arguments:
        if not argument.startswith("--"):
            if not takes_value:
                raise InputError(
                    f"unexpected argument {argument!r}: flags are given as --name=value"
                )
            takes_value = False
            continue
        name, equals, _ = argument.removeprefix("--").partition("=")
        takes_value = not equals
        if name not in known and name.removeprefix("no") not in known:
            near = difflib.get_close_matches(name, [*own, *sorted(known)], n=3, cutoff=0.75)
            remedy = (
                f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "see --help"
            )
            raise InputError(
                f"unknown flag --{name}, which neither this command nor Beam has: {remedy}"
            )


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
