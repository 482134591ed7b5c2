"""Errors that come out of Beam to one line in plain words."""

import contextlib
import logging
import re
import textwrap
from collections.abc import Iterator

import grpc

from pipelines.logs import files
from sitn_tf import beam_runner
from sitn_tf.errors import InputError

_LOGGERS = (
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.portability.local_job_service",
)
_FAILED = re.compile(r"Pipeline \S+ failed in state")
"""How Beam begins to say that a job failed on an engine that it reaches by its job server."""
_SHOWN = 300
_NO_NEWS = ("InputError", "semi_persistent_dir", "direct_running_mode")


@contextlib.contextmanager
def of_workers() -> Iterator[None]:
    """An InputError raised in a worker reaches the user as one line, not as a traceback."""
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
    kind = (record.exc_info[0] if record.exc_info else None) or type(None)
    text = record.getMessage()
    told = issubclass(kind, InputError | OSError)
    return not told and not any(known in text for known in _NO_NEWS)


@contextlib.contextmanager
def of_runner(runner: str) -> Iterator[None]:
    """What a runner needs and has not got, and that it failed, is told in one line.

    Local runners run the job's own code, whose errors of the same kinds would be bugs.
    """
    try:
        yield
    except (ImportError, NotImplementedError) as error:
        if runner == beam_runner.LOCAL:
            raise
        if isinstance(error, NotImplementedError):
            raise InputError(f"runner={runner}: {' '.join(str(error).split())}") from error
        raise InputError(
            f"runner={runner} needs packages that are not installed ({error}): "
            f"{files.INSTALL_GCP if 'Dataflow' in runner else 'install them'}"
        ) from error
    except Exception as error:
        if runner == beam_runner.LOCAL or not (why := _of_engine(error)):
            raise
        raise InputError(
            f"runner={runner}: {why}",
            "see its logs and its workers'; there is no data set, and the same command starts over",
        ) from error


def _of_engine(error: Exception) -> str:
    """What became of a job on an engine; "" where the error is another."""
    if isinstance(error, grpc.FutureTimeoutError):
        return "nothing answers at job_endpoint"
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"it can't be reached ({error.code().name}: {error.details()})"
    text = " ".join(str(error).split())
    if type(error).__name__ == "DataflowRuntimeException" or _FAILED.match(text):
        return textwrap.shorten(text, _SHOWN, placeholder=" ...")
    return ""
