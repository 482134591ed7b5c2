"""Errors in Beam's workers to one line in plain words."""

import contextlib
import logging
import re
from collections.abc import Iterator

from sitn_tf import storage_errors
from sitn_tf.errors import InputError

_LOGGERS = (
    "apache_beam.io.filebasedsink",
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.portability.local_job_service",
)
_NO_NEWS = (
    "InputError",
    "Exception in _rename_batch",
    "semi_persistent_dir",
    "direct_running_mode",
)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """An InputError raised in a worker reaches the user as one line, not as a traceback.

    Nor has a disk's error (`storage_errors.in_one_line`) Beam's traceback before it.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    except Exception as error:
        text = str(error) if not isinstance(error, InputError) else f"InputError: {error}"
        told = re.search(r"InputError: (.*?)(?: \[while running|\\n|\n|$)", text)
        if told:
            raise InputError(told.group(1)) from error
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for what Beam logs of an error that the user is told in one line, and for chatter."""
    error = record.exc_info[1] if record.exc_info else None
    text = record.getMessage()
    told = isinstance(error, InputError | OSError) or (
        isinstance(error, Exception) and storage_errors.in_one_line(error) is not None
    )
    return not told and not any(known in text for known in _NO_NEWS)
