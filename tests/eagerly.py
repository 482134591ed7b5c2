"""`tf.function`s run op by op, for tests of what surrounds a few steps.

Tracing a step takes most of a small run's time. Graphs are trained and scored in test_line.py,
sitn_tf/test_train.py's run, training/test_resume.py and distributed/test_replicas.py. What is
exported is traced all the same.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def op_by_op() -> Iterator[None]:
    """Within it, `tf.function`s that are called run as Python."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
