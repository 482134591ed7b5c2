"""Errors of Beam's engines to one line in plain words."""

import contextlib
import re
import textwrap
from collections.abc import Iterator

import grpc

from pipelines.logs import files
from sitn_tf import beam_runner
from sitn_tf.errors import InputError

_FAILED = re.compile(r"Pipeline \S+ failed in state")
"""How Beam begins to say that a job failed on an engine that it reaches by its job server."""
_SHOWN = 300


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
