"""Test AUC of asynchronous workers beside that of one process: a data set → a table of seeds.

    python -m tests.benchmarks.several_workers --data_dir=quickstart/data --output=FOLDER

Trains both stages for each seed twice, in one process and with two parameter servers and some
workers on loopback, with the same settings, tables cut however small they are, and evaluates each
stage 2. Given again it goes on where it was: what is trained stays in FOLDER/<seed>-<workers>.
Without a race stage 2 starts from stage 1 at once.
"""

import pathlib
import subprocess
import sys
import time

import numpy as np
from absl import flags

from sitn_tf import cli, runs, schema, whole_files
from sitn_tf.pages import markdown
from sitn_tf.pages.page import Section, Table
from sitn_tf.studies import significance
from tests.sitn_tf.distributed.processes import TRAIN, Cluster

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the runs and results.json.", flag_values=FLAGS)
_SEEDS = flags.DEFINE_multi_integer("seed", [1, 2, 3], "Of a pair of runs.", flag_values=FLAGS)
_SERVERS = flags.DEFINE_integer("servers", 2, "Parameter servers.", 1, flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer("workers", 2, "Beside one process.", 1, flag_values=FLAGS)
_SET = flags.DEFINE_multi_string(
    "set", ["stage2.race_steps=0"], "section.field=value of both.", flag_values=FLAGS
)

ALONE = 0
"""The number of workers of a run that needs none."""

LONGEST = 7200.0
"""Seconds that a stage may take."""


def main(_: list[str]) -> None:
    """Trains and evaluates what is missing, and prints the table after each pair."""
    data_dir = pathlib.Path(cli.require(FLAGS, "data_dir")).resolve()
    output = pathlib.Path(cli.require(FLAGS, "output")).resolve()
    kinds = (ALONE, _WORKERS.value)
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in kinds}
    for seed in _SEEDS.value:
        for workers in kinds:
            found[workers].append(trained(data_dir, output, seed, workers))
        whole_files.write_json(output / "results.json", found)
        print(report(found, _SEEDS.value), flush=True)


def trained(data_dir: pathlib.Path, output: pathlib.Path, seed: int, workers: int) -> dict:
    """Both stages and the evaluation of one run → what is told of it."""
    workdir = output / f"{seed}-{workers}"
    for stage in (1, 2):
        command = (TRAIN, f"--stage={stage}", f"--data_dir={data_dir}", f"--workdir={workdir}")
        command += (f"--seed={seed}", *(f"--set={setting}" for setting in _SET.value))
        if not runs.is_finished(workdir / f"stage{stage}"):
            began = time.monotonic()
            _train(command, output / f"said-{seed}-{workers}-stage{stage}", workers)
            print(f"{workdir}/stage{stage}: {time.monotonic() - began:.0f} s", flush=True)
    run_dir = workdir / schema.STAGE2
    metrics = runs.read_json(run_dir / runs.METRICS_FILE, {})
    if schema.TEST not in metrics:
        _alone(("sitn_tf.evaluate", f"--run_dir={run_dir}"))
        metrics = runs.read_json(run_dir / runs.METRICS_FILE, {})
    rank_gain = runs.read_json(workdir / schema.STAGE1 / runs.METRICS_FILE, {})[schema.VALIDATION]
    return {
        "auc": metrics[schema.TEST]["auc"],
        "log_loss": metrics[schema.TEST]["log_loss"],
        "validation": metrics[schema.VALIDATION]["auc"],
        "rank_gain": rank_gain["rank_gain"],
        "epoch": metrics[schema.VALIDATION]["epoch"],
        "epochs": len(runs.read_history(run_dir)),
    }


def _train(command: tuple[str, ...], folder: pathlib.Path, workers: int) -> None:
    if workers == ALONE:
        _alone(command)
        return
    with Cluster(folder, ps=_SERVERS.value, worker=workers, chief=1) as cluster:
        cluster.start_all(*command)
        statuses = cluster.wait(LONGEST)
        if any(statuses.values()):
            raise RuntimeError(f"ended with {statuses}: {cluster.said('chief')[-2000:]}")


def _alone(command: tuple[str, ...]) -> None:
    ran = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}: {ran.stderr[-2000:]}")


def report(found: dict[int, list[dict[str, float]]], seeds: list[int]) -> str:
    """A row a seed, then means with standard deviations, and the difference with its interval."""
    alone, several = found.values()
    workers = max(found)
    rows = [
        (
            str(seed),
            *(f"{run['auc']:.4f} (epoch {run['epoch']} of {run['epochs']})" for run in pair),
            f"{pair[1]['auc'] - pair[0]['auc']:+.4f}",
        )
        for seed, *pair in zip(seeds, alone, several, strict=False)
    ]
    one, other = (np.array([run["auc"] for run in of]) for of in (alone, several))
    mean, half = significance.interval(other - one)
    spread = [
        f"{values.mean():.4f} ± {values.std(ddof=1) if len(values) > 1 else np.nan:.4f}"
        for values in (one, other)
    ]
    rows.append(("all", *spread, f"{mean:+.4f} ± {half:.4f}"))
    titles = ("seed", "one process", f"{workers} asynchronous workers", "difference")
    table = Table("Test AUC, and the epoch of the best validation AUC", titles, rows)
    return markdown.document("Several workers", "", [Section("Beside one process", "", [table])])


if __name__ == "__main__":
    cli.run(main, FLAGS)
