"""Scalars for TensorBoard, written as event files without the tensorboard package."""

import pathlib
import time
from collections.abc import Mapping

import tensorflow as tf

_VERSION = "brain.Event:2"


class EventWriter:
    """Appends scalars to one event file of a directory.

    Args:
      directory: a run of its own in TensorBoard.
      first_step: what an earlier process wrote from this step on, TensorBoard forgets.
    """

    def __init__(self, directory: pathlib.Path, first_step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}"
        self._writer = tf.io.TFRecordWriter(str(directory / name))
        self._write(tf.compat.v1.Event(file_version=_VERSION))
        started = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write(tf.compat.v1.Event(step=first_step, session_log=started))

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by tag."""
        summary = tf.compat.v1.Summary()
        for tag, value in values.items():
            summary.value.add(tag=tag, simple_value=value)
        self._write(tf.compat.v1.Event(step=step, summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def _write(self, event: tf.compat.v1.Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
