"""A disk that is full, read-only or gone, and a folder that is removed, while a command writes.

The disks are small file systems in memory, which only root may mount.
"""

import contextlib
import math
import pathlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from tests.drills import line, messages, programs
from tests.drills.line import Step
from tests.drills.outcome import Outcome

_WRITERS = ("build", "stage 1", "stage 2", "export", "versions --prune", "vectors", "score_batch")
_SHARES = (0.1, 0.5, 0.9)
"""Of the room that a command's output takes, where the disk is full."""
_KINDS = ("full", "read-only")
_BLOCK = 4096
_ROOMY = 256 << 20
_GONE_AFTER = (0.3, 0.6, 0.9)
"""Of the time that a command takes, when the folder it writes into is removed."""


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """Three rows a command that writes; the short drill removes the folder of a build."""
    for step in (step for step in line.STEPS if step.name in _WRITERS):
        if short:
            yield from disturb_each([step], folder, ())
            return
        yield from disturb_each([step], folder, _SHARES[1:2] if step.takes_long else _SHARES)


def disturb_each(
    steps: Sequence[Step], folder: pathlib.Path, shares: Sequence[float]
) -> Iterator[Outcome]:
    """Full, read-only and vanishing, for each step.

    Args:
      shares: of a command's output for which full disks have room; none leaves out all disks.
    """
    whole = folder.parent / "line"
    seconds = line.make(whole, last=steps[-1].name)
    refused = _may_not_mount(folder / "disk")
    for step in steps:
        if shares and refused:
            yield from (Outcome(f"{kind} disk: {step.name}", 0, (), refused) for kind in _KINDS)
        elif shares:
            yield _full(step, whole, folder / "disk", shares)
            yield _read_only(step, whole, folder / "disk")
        moments = [share * seconds[step.name] for share in _GONE_AFTER[: max(1, len(shares))]]
        lost = [_vanishing(step, whole, folder / "gone", moment) for moment in moments]
        yield Outcome(f"vanishing folder: {step.name}", len(moments), tuple(filter(None, lost)))


def _may_not_mount(at: pathlib.Path) -> str:
    """Why there can be no small disks here, empty if there can."""
    try:
        with _disk(at, _ROOMY):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        return f"mount: {said}"


@contextlib.contextmanager
def _disk(at: pathlib.Path, size: int) -> Iterator[None]:
    at.mkdir(parents=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", at)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", at], check=True, capture_output=True, text=True)
    finally:
        at.rmdir()


def _mount(*words: str | pathlib.Path) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)


def _room(folder: pathlib.Path) -> int:
    """Bytes that the files below a folder take in a file system of blocks."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(math.ceil(size / _BLOCK) * _BLOCK for size in sizes)


def _full(step: Step, whole: pathlib.Path, own: pathlib.Path, shares: Sequence[float]) -> Outcome:
    """Disks with room for a share of what the command writes."""
    with _disk(own, _ROOMY):
        step.prepare(whole, own)
        before = _room(own)
        programs.run(step.command(whole, own), whole)
        needed = max(0, _room(own) - before)
    lost = []
    for share in shares:
        left = int(share * needed) // _BLOCK * _BLOCK
        with _disk(own, before + needed + _BLOCK):
            step.prepare(whole, own)
            # A disk of no size would have no bound.
            (own / "filler").write_bytes(bytes(needed + _BLOCK - left))
            lost.append(_then_again(step, whole, own, f"size={_ROOMY}", f"room for {share:.0%}"))
    return Outcome(f"full disk: {step.name}", len(shares), tuple(filter(None, lost)))


def _read_only(step: Step, whole: pathlib.Path, own: pathlib.Path) -> Outcome:
    with _disk(own, _ROOMY):
        step.prepare(whole, own)
        _mount("-o", "remount,ro", own)
        what = _then_again(step, whole, own, "rw", "read-only")
    return Outcome(f"read-only disk: {step.name}", 1, (what,) if what else ())


def _then_again(step: Step, whole: pathlib.Path, own: pathlib.Path, mended: str, how: str) -> str:
    """Runs a command on a disk with a fault and, when it is mended, again."""
    undisturbed = line.result_of(step, whole)
    ended = programs.run(step.command(whole, own), whole)
    left = step.result(own)
    if ended.status == 0:
        return "" if line.same(left, undisturbed) else f"{how}: ended well in something else"
    if what := messages.flaw(ended, str(own)):
        return f"{how}: {what}"
    if left is not None and not line.same(left, undisturbed):
        return f"{how}: what it left looks finished and is not"
    _mount("-o", f"remount,{mended}", own)
    again = programs.run(step.command(whole, own), whole)
    if again.status or not line.same(step.result(own), undisturbed):
        return f"{how}: given again it ended with {again.status} in something else: {again.err}"
    return ""


def _vanishing(step: Step, whole: pathlib.Path, own: pathlib.Path, moment: float) -> str:
    """What was lost where all that a command had written was removed after some seconds."""
    step.prepare(whole, own)
    program = programs.Program(step.command(whole, own), whole)
    if not program.wait(moment):
        shutil.rmtree(own, ignore_errors=True)
    ended = program.end()
    left = step.result(own) if own.exists() else None
    shutil.rmtree(own, ignore_errors=True)
    if ended.status == 0:
        fine = line.same(left, line.result_of(step, whole))
        return "" if fine else f"removed after {moment:.1f} s: ended well without its output"
    what = messages.flaw(ended, str(own))
    return f"removed after {moment:.1f} s: {what}" if what else ""
