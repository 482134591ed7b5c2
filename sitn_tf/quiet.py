"""Imports of TensorFlow and Beam without messages that no setting of theirs silences."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

# Without its extra for Google Cloud Beam warns at every import that this is missing; who
# needs it gets an error, and all others one line less. Nor does anyone need to know that
# RunInference doesn't measure its memory without PyTorch.
_NO_NEWS = ("apitools not found, and bigquery", "Resource module is not available")


def hush_beam() -> None:
    """Drops what Beam says when it is imported, which has to come after."""
    logging.getLogger().addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NO_NEWS)


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras 2; errors are raised as ever, only the chatter is dropped."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_stderr():
        import tensorflow as tf
        import tf_keras  # noqa: F401

        tf.config.list_physical_devices()


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Points the process's standard error, C++'s included, to nowhere for a while."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
