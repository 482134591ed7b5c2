"""Kills in the middle of a job."""

import pathlib
import threading
import time
from collections.abc import Callable


def once_sorted(folder: pathlib.Path, act: Callable[[], None]) -> None:
    """Does something, in a thread of its own, as soon as a job in a folder has sorted a shard.

    Args:
      folder: the parent of the job's output, `out`.
    """

    def wait_and_act() -> None:
        while not list(folder.glob("out.tmp-*/work/sorted-*")):
            time.sleep(0.005)
        act()

    threading.Thread(target=wait_and_act, daemon=True).start()
