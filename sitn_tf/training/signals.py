"""A request to stop, by SIGTERM or SIGINT, taken up where the state can be saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOPPED_STATUS = 75
"""Exit status of a run that was asked to stop and can be continued: EX_TEMPFAIL."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """Training was asked to stop; its state is saved."""


class StopRequest:
    """While entered, notes SIGTERM and SIGINT instead of dying of them.

    A second signal has its usual effect. Does nothing outside of the main thread, where
    Python handles no signals.

    Attributes:
      requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._raising = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Within it, a request raises StoppedError at once: for work that changes no state."""
        self._raising = True
        try:
            self.check()
            yield
        finally:
            self._raising = False

    def check(self) -> None:
        """Raises StoppedError if a signal came."""
        if self.requested:
            raise StoppedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if self._raising:
            raise StoppedError

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
