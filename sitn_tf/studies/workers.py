"""Tasks spread over processes of their own: what to do, and how many at once → outcomes.

Each worker is a fresh interpreter that does one task after the other, so that TensorFlow starts
once a worker and not once a task. Ending the caller, by an error or a signal, ends the workers by
SIGTERM: a training run among their tasks saves itself first.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Generic, NoReturn, TypeVar

TaskT = TypeVar("TaskT")

LOOK_SECONDS = 1.0
"""Between looks whether a task that was held back may begin."""

TASKS_A_WORKER = 10
"""Then another one takes over: TensorFlow keeps some 20 MB of each graph with custom gradients."""


def do_all(
    tasks: Sequence[TaskT],
    do: Callable[[TaskT], Any],
    jobs: int = 1,
    may_begin: Callable[[TaskT, Sequence[TaskT]], bool] = lambda task, running: True,
) -> Iterator[tuple[TaskT, Any]]:
    """Does every task, yields each with its outcome as soon as that is known.

    Args:
      tasks: begun in this order as far as they may; like outcomes, they are pickled.
      do: task → outcome; a function of a module, which should raise nothing: a worker that dies
        of a task gives its exit status, an `int`, as the outcome.
      jobs: worker processes at most. Several share the cores that this process may use.
      may_begin: (task, those running) → whether it need not wait for one of these.
    """
    waiting, running, idle = list(tasks), list[_Worker[TaskT]](), list[_Worker[TaskT]]()
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if jobs > 1 else 0
    try:
        while waiting or running:
            while len(running) < jobs:
                now = [worker.task for worker in running]
                ready = next((task for task in waiting if may_begin(task, now)), None)
                if ready is None:
                    break
                waiting.remove(ready)
                worker = idle.pop() if idle else _Worker[TaskT](do, threads)
                running.append(worker)
                worker.begin(ready)
            held_back = bool(waiting) and len(running) < jobs
            pipes = [worker.pipe for worker in running]
            ended = connection.wait(pipes, LOOK_SECONDS if held_back else None)
            for worker in [worker for worker in running if worker.pipe in ended]:
                running.remove(worker)
                alive, outcome = worker.outcome()
                if alive and worker.tasks < TASKS_A_WORKER:
                    idle.append(worker)
                else:
                    worker.end()
                yield worker.task, outcome
    finally:
        for worker in running:
            worker.process.terminate()
        for worker in (*running, *idle):
            worker.end()


def told_end(status: int) -> str:
    """How a worker ended that died of its task, by its exit status: what `do_all` yields of it."""
    if status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    memory = ", as where memory runs out" if -status == signal.SIGKILL else ""
    return f"its process was ended by {name}{memory}"


@contextlib.contextmanager
def signals_as_exits() -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C leave by way of every `finally`, so that workers are ended too."""

    def leave(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Worker(Generic[TaskT]):
    """A process, and this end of its pipe."""

    task: TaskT
    tasks = 0

    def __init__(self, do: Callable[[TaskT], Any], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, do, threads), daemon=True)
        self.process.start()
        # Else the pipe would not end with the worker.
        theirs.close()

    def begin(self, task: TaskT) -> None:
        self.task = task
        self.tasks += 1
        # It may have died meanwhile, which `outcome` finds.
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def outcome(self) -> tuple[bool, Any]:
        """Whether the worker lives on, and its outcome or exit status."""
        try:
            return True, self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return False, self.process.exitcode

    def end(self) -> None:
        """Lets an idle worker go, and waits until it is gone."""
        self.pipe.close()
        self.process.join()


def _work(pipe: connection.Connection, do: Callable[[Any], Any], threads: int) -> None:
    """What a worker does.

    Args:
      threads: that TensorFlow may use; 0: as many as it likes.
    """
    # Ctrl-C goes to a whole group; of a second signal, after do_all's, a run would die unsaved.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads:
        for pool in ("INTRAOP", "INTEROP"):
            os.environ.setdefault(f"TF_NUM_{pool}_THREADS", str(threads))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(do(task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
