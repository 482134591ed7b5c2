"""How fast the data set job is, and what memory it takes.

    python -m tests.benchmarks.pipelines same
    python -m tests.benchmarks.pipelines throughput --lines=5000000
    python -m tests.benchmarks.pipelines cores --lines=2000000
    python -m tests.benchmarks.pipelines memory

`same` shows on a small log that all programs write the same records but for the draws.
`throughput` runs three programs on the same synthetic logs, each in a process of its own:
the job (one process, and two), the same job written one element a line in Beam, and a plain
polars script (needs `pip install polars`; skipped without). `cores` runs the job in one and in
two processes, beside one and two copies of the same script that share nothing: what the
machine's second core can give at most, and what the job makes of it. `memory` runs the job on
growing logs with the same --shards and with ones that grow.
"""

import argparse
import collections
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sitn_tf import schema
from tests.benchmarks import pipelines_baselines as baselines
from tests.benchmarks import process_trees

EVENTS_PER_USER = 40
WEEK = 7 * 86400
BEGIN = 1_650_000_000
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def write_logs(folder: pathlib.Path, lines: int, seed: int = 0) -> None:
    """Two logs of `lines` JSON lines together: Zipf-like items, users of unequal activity."""
    rng = np.random.default_rng(seed)
    users = max(10, lines // EVENTS_PER_USER)
    activity = rng.gamma(1.0, size=users)
    edges = np.cumsum(activity) / activity.sum()
    for domain, share in (("source", 0.6), ("target", 0.4)):
        count = int(lines * share)
        items = max(100, min(lines // 40, 200_000))
        with open(folder / f"{domain}.jsonl", "wb") as file:
            for begin in range(0, count, 500_000):
                n = min(500_000, count - begin)
                user = np.searchsorted(edges, rng.random(n))
                item = (items * rng.random(n) ** 3).astype(np.int64)
                moment = BEGIN + rng.integers(0, WEEK, n)
                file.write(_json_lines(user, item, moment, domain[0].upper()))


def _json_lines(user: np.ndarray, item: np.ndarray, moment: np.ndarray, prefix: str) -> bytes:
    def text(values: np.ndarray) -> pa.Array:
        return pa.array(values).cast(pa.string())

    def padded(values: np.ndarray) -> pa.Array:
        return pc.utf8_lpad(text(values), 9, "0")

    lines = pc.binary_join_element_wise(
        '{"user_id":"A', padded(user), f'","item_id":"{prefix}', padded(item),
        '","timestamp":', text(moment), ',"session":"s1","device":"phone"}\n', "",
    )  # fmt: skip
    return (
        lines.cast(pa.binary()).buffers()[2].to_pybytes()[: pc.sum(pc.binary_length(lines)).as_py()]
    )


def measure(command: list[str]) -> dict[str, float]:
    """Runs a command; seconds, CPU seconds, peak of its process tree's resident memory in MB."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], process_trees.resident_megabytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = process.wait()
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"failed with status {status}: {' '.join(command)}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak[0]}


def job_command(folder: pathlib.Path, output: pathlib.Path, *flags: str) -> list[str]:
    return [
        sys.executable, "-m", "pipelines.build_dataset",
        f"--source_log={folder}/source.jsonl", f"--target_log={folder}/target.jsonl",
        f"--output={output}", "--overwrite",
        f"--train_until={baselines.TRAIN_UNTIL}",
        f"--validation_until={baselines.VALIDATION_UNTIL}",
        "--keep_unknown_clicks",  # the programs it is measured against filter nothing
        *flags,
    ]  # fmt: skip


def records(pattern: str, stage: str) -> collections.Counter:
    """How often each record occurs in some TFRecord files, the draws left out."""
    import tensorflow as tf

    found: collections.Counter = collections.Counter()
    names = [f.name for f in schema.STAGE_FEATURES[stage]]
    for record in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern))):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        values = {
            name: tuple(features[name].bytes_list.value or features[name].int64_list.value)
            for name in names
        }
        drawn = values.pop(schema.CANDIDATES.name, ())
        labels = values.pop(schema.LABELS.name, ())
        clicked = tuple(c for c, label in zip(drawn, labels, strict=True) if label)
        found[(*values.values(), clicked, len(drawn))] += 1
    return found


def same(lines: int) -> None:
    """Exits with an error where a program's records differ from the job's."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_logs(folder, lines)
        measure(job_command(folder, folder / "job"))
        for program in ("lines", "polars", "polars-tf"):
            out = folder / program
            out.mkdir()
            script = [sys.executable, "-m", "tests.benchmarks.pipelines_baselines"]
            measure([*script, program, str(folder), str(out)])
            for stage, splits in (("stage1", ("*",)), ("stage2", ("train", "validation", "test"))):
                for split in splits:  # stage 1 holds out other users
                    ours = records(f"{folder}/job/{stage}/*-{split}.tfrecord*", stage)
                    theirs = records(f"{out}/{stage}-{split}*", stage)
                    if ours != theirs or not ours:
                        raise SystemExit(
                            f"{program}, {stage} {split}: {(ours - theirs).total():,} records are "
                            f"the job's alone, {(theirs - ours).total():,} the program's"
                        )
                    print(f"{program}, {stage} {split}: the same {ours.total():,} records")


def throughput(lines: int, line_lines: int) -> None:
    """Prints a table of programs with lines a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        small = folder / "small"
        small.mkdir()
        write_logs(folder, lines)
        write_logs(small, line_lines)
        baseline = [sys.executable, "-m", "tests.benchmarks.pipelines_baselines"]
        programs = [
            ("job, one process", lines, job_command(folder, folder / "out")),
            ("job, two processes", lines, job_command(folder, folder / "out", *TWO_PROCESSES)),
            ("Beam, one element a line", line_lines,
             [*baseline, "lines", str(small), str(folder / "out-lines")]),
            ("Beam, a line, two processes", line_lines,
             [*baseline, "lines", str(small), str(folder / "out-lines"), *TWO_PROCESSES]),
            ("polars, this encoder", lines,
             [*baseline, "polars", str(folder), str(folder / "out-polars")]),
            ("polars, tf.train.Example", lines,
             [*baseline, "polars-tf", str(folder), str(folder / "out-polars")]),
        ]  # fmt: skip
        print(
            f"{'program':30}{'lines':>12}{'seconds':>10}{'CPU s':>10}{'lines/s':>12}"
            f"{'lines/CPU s':>13}{'peak MB':>10}"
        )
        for title, count, command in programs:
            found = measure(command)
            print(
                f"{title:30}{count:>12,}{found['seconds']:>10.1f}{found['cpu']:>10.1f}"
                f"{count / found['seconds']:>12,.0f}{count / found['cpu']:>13,.0f}"
                f"{found['peak_mb']:>10,.0f}",
                flush=True,
            )


_ARITHMETIC = "total = 0\nfor i in range(30_000_000): total += i * i & 3"


def cores(lines: int, turns: int) -> None:
    """Prints how much more a second process gets done: of plain arithmetic, and of the job."""
    print(f"{'turn':>4}{'arithmetic':>12}{'the job':>10}{'one, s':>10}{'two, s':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_logs(folder, lines)
        for turn in range(turns):
            alone, together = copies(1), copies(2)
            one = measure(job_command(folder, folder / "out"))["seconds"]
            two = measure(job_command(folder, folder / "out", *TWO_PROCESSES))["seconds"]
            print(
                f"{turn:>4}{2 * alone / together:>12.2f}{one / two:>10.2f}{one:>10.1f}{two:>10.1f}",
                flush=True,
            )


def copies(count: int) -> float:
    """Seconds until so many processes of the same arithmetic, started at once, are done."""
    began = time.monotonic()
    started = [subprocess.Popen([sys.executable, "-c", _ARITHMETIC]) for _ in range(count)]
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise SystemExit("a process of arithmetic failed")
    return time.monotonic() - began


def memory(sizes: list[int]) -> None:
    """Prints time and peak memory of the job on growing logs."""
    print(
        f"{'lines':>12}{'shards':>8}{'seconds':>10}{'CPU s':>10}{'lines/CPU s':>13}{'peak MB':>10}"
    )
    for lines in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_logs(folder, lines)
            for shards in sorted({16, max(16, 16 * lines // sizes[0])}):  # fixed, and growing
                found = measure(job_command(folder, folder / "out", f"--shards={shards}"))
                print(
                    f"{lines:>12,}{shards:>8}{found['seconds']:>10.1f}{found['cpu']:>10.1f}"
                    f"{lines / found['cpu']:>13,.0f}{found['peak_mb']:>10,.0f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("same", "throughput", "cores", "memory", "logs"))
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--line_lines", type=int, default=500_000, help="for the slow baseline")
    parser.add_argument("--sizes", type=json.loads, default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--turns", type=int, default=3, help="of cores")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("."))
    arguments = parser.parse_args()
    if arguments.what == "same":
        same(arguments.line_lines // 10)
    elif arguments.what == "throughput":
        throughput(arguments.lines, arguments.line_lines)
    elif arguments.what == "cores":
        cores(arguments.lines, arguments.turns)
    elif arguments.what == "memory":
        memory(arguments.sizes)
    else:
        write_logs(arguments.folder, arguments.lines)


if __name__ == "__main__":
    main()
