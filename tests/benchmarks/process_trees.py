"""What a process and all below it have used of the machine, by Linux's /proc.

A process that ends meanwhile counts as nothing, but for what its parent has waited for.
"""

import contextlib
import os
import pathlib


def cpu_seconds(root: int) -> float:
    """Of a process tree, its ended children included."""
    return sum(sum(map(int, stat[11:15])) for stat in _stats(root)) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(root: int) -> float:
    """Resident memory of a process tree, added up."""
    return sum(int(stat[21]) for stat in _stats(root)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_megabytes(root: int) -> float:
    """Peaks of resident memory of a process tree, added up."""
    told = (line.split() for text in _read(root, "status") for line in text.splitlines())
    return sum(int(words[1]) for words in told if words[:1] == ["VmHWM:"]) / 1024


def _stats(root: int) -> list[list[str]]:
    """Of each process what proc(5) lists of /proc/PID/stat from the third field, `state`, on."""
    return [text.rsplit(")", 1)[1].split() for text in _read(root, "stat")]


def _read(root: int, name: str) -> list[str]:
    texts = []
    for process in _descendants(root):
        with contextlib.suppress(OSError):
            texts.append(pathlib.Path(f"/proc/{process}/{name}").read_text())
    return texts


def _descendants(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for process in found:
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
                found += [int(child) for child in task.read_text().split()]
    return found
