"""Memory of the C++ runtime under load of mixed sizes: by threads, allocator and oneDNN.

    python -m tests.benchmarks.serving_memory [--servable=SERVABLE/1] [--threads=64]

Each setting gets a fresh process (export/native.py) and the same requests in the same order.
Prints the resident set after loading and after each turn, its peak and the speed. tcmalloc is
measured where its library is installed (apt-get install libtcmalloc-minimal4).
"""

import ctypes.util
import os
import pathlib
import re
import tempfile

import numpy as np
from absl import flags

from export import native, requests
from export.exporting import export
from sitn_tf import cli, quiet, schema
from tests.benchmarks import serving

FLAGS = flags.FlagValues()
_SERVABLE = flags.DEFINE_string("servable", None, "A version, SERVABLE/1.", flag_values=FLAGS)
_THREADS = flags.DEFINE_integer("threads", 64, "Requests in flight.", 1, flag_values=FLAGS)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "About, of a turn.", 1e-3, flag_values=FLAGS)
_TURNS = flags.DEFINE_integer("turns", 4, "Turns.", 1, flag_values=FLAGS)
_ITEMS = flags.DEFINE_integer("items", 20_000, "A domain, without a run.", 10, flag_values=FLAGS)

HISTORY = 100
POOL = os.cpu_count() or 1
Setting = tuple[int, dict[str, str]]
"""Threads between operations (inter-op), and the environment of the process."""
SETTINGS: dict[str, Setting] = {
    "callers' threads": (-1, {}),
    "callers' threads, 2 arenas": (-1, {"MALLOC_ARENA_MAX": "2"}),
    "callers' threads, tcmalloc": (-1, {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}),
    "callers' threads, no oneDNN": (-1, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "pool": (POOL, {}),
    "pool, 2 arenas": (POOL, {"MALLOC_ARENA_MAX": "2"}),
    "pool, tcmalloc": (POOL, {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}),
    "pool, no oneDNN, 2 arenas": (POOL, {"TF_ENABLE_ONEDNN_OPTS": "0", "MALLOC_ARENA_MAX": "2"}),
}


def mixed_calls(version: pathlib.Path, count: int = 60) -> list[native.Call]:
    """Calls of `score` with 1 to 64 rows and 1 to 2,000 candidates, small ones more often."""
    rng = np.random.default_rng(0)
    known = {
        domain: np.array(
            list(requests.read_vocabulary(version / "assets" / f"{domain}.item.txt")), object
        )
        for domain in schema.DOMAINS
    }

    def draw(domain: str, longest: int) -> tuple[str, ...]:
        return tuple(rng.choice(known[domain], int(np.exp(rng.uniform(0, np.log(longest))))))

    def call() -> native.Call:
        rows = int(2 ** rng.integers(0, 7))
        longest = max(2000 // rows, 20)
        asked = [
            requests.Request(
                draw(schema.SOURCE, HISTORY), draw(schema.TARGET, HISTORY),
                draw(schema.TARGET, longest),
            )
            for _ in range(rows)
        ]  # fmt: skip
        return "score", requests.score_inputs(asked)

    return [call() for _ in range(count)]


def resident(pid: int) -> tuple[float, float]:
    """MB of a process that are in memory: now, and at most so far."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now
    assert most
    return int(now[1]) / 1024, int(most[1]) / 1024


def measure(version: pathlib.Path, setting: Setting) -> str:
    """MB after loading and after each turn, the peak, and the speed of the last turn."""
    inter_op, environment = setting
    calls = mixed_calls(version)
    alone = [("score", requests.score_inputs(serving.make_requests(version, 500, HISTORY)[:1]))]
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        session = native.Session(version, intra_op=1, inter_op=inter_op)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    with session:
        sizes = [resident(session.pid)[0]]
        count = len(calls)
        for _ in range(_TURNS.value):
            timing = session.benchmark(calls, count, _THREADS.value)
            sizes.append(resident(session.pid)[0])
            count = max(len(calls), int(timing.throughput * _SECONDS.value))
        most = resident(session.pid)[1]
        single = session.benchmark(alone, 200, warmup=20)
    return (
        f"{' '.join(f'{size:5.0f}' for size in sizes)}  peak {most:5.0f} MB  "
        f"{timing.throughput:6.1f} requests/s  one at a time: p50 {single.percentile(50):.2f} ms"
    )


def main(_: list[str]) -> None:
    """Measures every allocator there is and prints a line for each."""
    quiet.import_tensorflow()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        version = pathlib.Path(_SERVABLE.value) if _SERVABLE.value else folder
        if not _SERVABLE.value:
            run_dir = serving.write_run(folder, _ITEMS.value, HISTORY)
            version, _described = export(run_dir, folder / "servable")
        for name, setting in SETTINGS.items():
            if "tcmalloc" in name and not ctypes.util.find_library("tcmalloc_minimal"):
                print(f"{name}: libtcmalloc_minimal is not installed")
                continue
            print(f"{name:28} {measure(version, setting)}", flush=True)


if __name__ == "__main__":
    cli.run(main, FLAGS)
