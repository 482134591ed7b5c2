"""What a run of a study says while it is trained → its log, and what of it to repeat.

A run that is carried out again, since it was stopped or has failed, says more below a line of its
own: what is repeated of it is of the last time.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

from sitn_tf.studies import readings

FILE = "log.txt"
BEGAN = "== began "
"""Begins the line above what is said each time."""


@contextlib.contextmanager
def output_in(log: pathlib.Path) -> Iterator[None]:
    """Appends the process's output, C++'s included, to a file for a while."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("a"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            number = stream.fileno()
            saved = os.dup(number)
            os.dup2(file.fileno(), number)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            stack.callback(stream.flush)
        print(f"{BEGAN}{readings.now()}", flush=True)
        yield


def last_words(log: pathlib.Path) -> str:
    """The last error that a log tells of the last time, its last line where it tells none."""
    lines: list[str] = []
    for line in log.read_text().splitlines():
        if line.startswith(BEGAN):
            lines.clear()
        elif line.strip():
            lines.append(line)
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]
