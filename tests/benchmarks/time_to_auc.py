"""Seconds until a model is as good as its competitor gets: this project beside DeepCTR and FuxiCTR.

    python -m tests.benchmarks.time_to_auc --environments=FOLDER --data_dir=DATASET

Every program trains alone, one after the other, on all labelled requests of one data set, and is
scored on the validation split after each epoch until two epochs bring nothing better. Its time
begins with its process: imports, data loading, graphs, and scoring after each epoch count. The
competitors have their rows ready as arrays, and their candidates and dimensions are those of
training.py; ours is `python -m sitn_tf.train` on the TFRecords.

The goal of each of our programs is the best validation AUC of each competitor's DIN. What never
gets there says so.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from sitn_tf import schema
from tests.benchmarks.process_trees import cpu_seconds
from tests.benchmarks.training import (
    ALONE,
    BASELINES,
    DEFAULT,
    UNIT,
    make_environment,
)
from tests.benchmarks.training_data import write_rows

THEIRS = ("deepctr_din", "fuxictr_din")
IDS_ALONE = ("items.side_features=",)
OURS = {
    "din_alone": ("model.use_source=false", *ALONE["din_alone"], *IDS_ALONE),
    "sitn_ids": IDS_ALONE,
    "sitn": (),
    "sitn_after_stage1": ("stage2.min_lift=0",),
}
"""Settings by program: DIN set as its competitors, SITN with ids alone, and SITN by default, from
scratch and after its stage 1, whose time counts.
"""


@dataclasses.dataclass(frozen=True)
class Reached:
    """Where a program was at the end of an epoch.

    Attributes:
      seconds: since its start, by the clock.
      cpu_seconds: of it and its children.
      auc: on the validation split.
    """

    seconds: float
    cpu_seconds: float
    auc: float


def time_to(path: Sequence[Reached], goal: float) -> Reached | None:
    """The first epoch's end at which the goal was reached; None if there is none."""
    return next((reached for reached in path if reached.auc >= goal), None)


def table(paths: dict[str, list[Reached]], goals: Sequence[str]) -> str:
    """Markdown: a program a row; seconds (CPU seconds) until each competitor's best AUC."""
    best = {name: max(reached.auc for reached in path) for name, path in paths.items()}
    titles = ["program", "best AUC", "epochs", *(f"until {g}'s {best[g]:.4f}" for g in goals)]
    lines = [titles, ["---"] * len(titles)]
    for name, path in paths.items():
        cells = []
        for goal in goals:
            there = time_to(path, best[goal])
            cells.append(f"{there.seconds:.0f} ({there.cpu_seconds:.0f})" if there else "never")
        lines.append([name, f"{best[name]:.4f}", str(len(path)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def follow(command: Sequence[str], judged: Callable[[str], float | None]) -> Iterator[Reached]:
    """Runs a command; what `judged` finds in a line of its output is the AUC of an epoch's end.

    Raises:
      RuntimeError: it failed.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            auc = judged(line)
            if auc is not None:
                yield Reached(time.monotonic() - began, cpu_seconds(process.pid), auc)
        if process.wait():
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended:\n{log.read()[-3000:]}")


def widen(files: Iterable[pathlib.Path]) -> None:
    """Pads the histories of files of rows to one width, which a model is built for."""
    rows = {path: dict(np.load(path)) for path in files}
    width = max(of_split["history"].shape[1] for of_split in rows.values())
    for path, of_split in rows.items():
        history = of_split["history"]
        padding = (0, width - history.shape[1])
        of_split["history"] = np.pad(history, ((0, 0), padding), constant_values=schema.PAD_ID)
        np.savez(path, **of_split)


def theirs(program: str, rows: dict[str, pathlib.Path], options: argparse.Namespace) -> list:
    """The path of a competitor."""
    python = make_environment(options.environments, program.partition("_")[0])
    items = schema.read_manifest(options.data_dir).vocabulary_size(schema.TARGET)
    command = [str(python), str(BASELINES), program, str(rows[schema.TRAIN]), f"--items={items}"]
    command += [f"--judge={rows[schema.VALIDATION]}", f"--epochs={options.epochs}"]
    command += [f"--batch={options.rows}", f"--dim={DEFAULT.model.embedding_dim}"]
    command += [f"--heads={DEFAULT.encoder.heads}", "--mlp", *map(str, DEFAULT.mlp.widths)]
    command += ["--unit", *map(str, UNIT), "--unit_activation=sigmoid"]
    return list(follow(command, lambda line: json.loads(line).get("auc")))


def ours(program: str, workdir: pathlib.Path, options: argparse.Namespace) -> list[Reached]:
    """The path of one of this project's programs; its stage 1 comes before the first epoch."""
    chosen = [f"stage2.epochs={options.epochs}", "stage2.patience=2", "stage2.race_steps=0"]
    command = [sys.executable, "-m", "sitn_tf.train", f"--data_dir={options.data_dir}"]
    command += [f"--workdir={workdir}"]
    command += [f"--set={setting}" for setting in (*chosen, *OURS[program], *options.set)]
    before = Reached(0.0, 0.0, 0.0)
    if program == "sitn_after_stage1":
        *_, before = follow([*command, "--stage=1"], lambda line: 0.0 if "wrote" in line else None)
    else:
        command.append("--init=none")
    history = workdir / schema.STAGE2 / "history.json"

    def judged(line: str) -> float | None:
        if not line.startswith("epoch "):
            return None
        return float(json.loads(history.read_text())[-1]["auc"])

    return [
        Reached(
            before.seconds + reached.seconds,
            before.cpu_seconds + reached.cpu_seconds,
            reached.auc,
        )
        for reached in follow([*command, "--stage=2"], judged)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=pathlib.Path, help="Of the competitors.")
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, help="Data set.")
    parser.add_argument("--programs", default=",".join([*THEIRS, *OURS]))
    parser.add_argument("--epochs", type=int, default=10, help="At most.")
    parser.add_argument("--rows", type=int, default=512, help="Candidates a step of theirs.")
    parser.add_argument("--set", action="append", default=[], help="Of ours: section.field=value.")
    parser.add_argument("--output", type=pathlib.Path, help="JSON of the paths.")
    options = parser.parse_args()
    programs = options.programs.split(",")
    paths: dict[str, list[Reached]] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        records = schema.read_manifest(options.data_dir).records[schema.STAGE2]
        for split in (schema.TRAIN, schema.VALIDATION):
            rows[split] = pathlib.Path(folder) / f"{split}.npz"
            write_rows(options.data_dir, rows[split], records[split], split)
        widen(rows.values())
        for program in programs:
            if program in OURS:
                paths[program] = ours(program, pathlib.Path(folder) / program, options)
            else:
                paths[program] = theirs(program, rows, options)
            print(f"{program}: {[dataclasses.astuple(r) for r in paths[program]]}", flush=True)
            if options.output:
                kept = {name: [*map(dataclasses.asdict, path)] for name, path in paths.items()}
                options.output.write_text(json.dumps(kept, indent=2) + "\n")
    print(table(paths, [program for program in programs if program in THEIRS]))


if __name__ == "__main__":
    main()
