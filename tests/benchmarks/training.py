"""Candidates trained on in a second: this project against DeepCTR and FuxiCTR.

    python -m tests.benchmarks.training --environments=FOLDER [--data=synthetic,real]

Makes an environment for each competitor in FOLDER where it is missing (`python -m venv`, `pip
install`). `synthetic` has histories of 100 items; `real` is amazon_kitchen_food under the folder
named by SITN_REAL_DATA. All programs run in processes of their own, on the same records, with the
same dimensions, heads, hidden widths and candidates a step, and train in alternating turns, so
that a busy machine slows all of them. This project reads its TFRecords all the while; the others
have their rows in memory; they see the target history alone, which is what `din` sees, while
`sitn` and `din_both` see both. `records` is the input pipeline alone. `--own` adds what gzip
would change and how far stage 1's encoders are from a large matrix product.
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

import numpy as np

from sitn_tf import schema

BASELINES = pathlib.Path(__file__).with_name("training_baselines.py")
PACKAGES = {
    "deepctr": ("deepctr==0.9.4", "tensorflow==2.21.*", "tf-keras==2.21.*"),
    "fuxictr": ("fuxictr==2.3.10", "torch"),
}
OURS = ("sitn", "din", "din_both", "records")
THEIRS = ("deepctr_bst", "deepctr_din", "fuxictr_din")
RATIOS = (("sitn", "deepctr_bst"), ("din", "deepctr_din"), ("din", "fuxictr_din"))

DIM, HEADS, MLP, UNIT = 32, 4, (128, 64), (36,)
CANDIDATES = 10
REAL = "amazon_kitchen_food"
SYNTHETIC_ITEMS, SYNTHETIC_HISTORY, INTERESTS = 20_000, 100, 20
SHARDS = 4


def write_synthetic(folder: pathlib.Path, requests: int, compression: str = "") -> None:
    """A data set of full histories in which the candidate of the user's interest is clicked."""
    import tensorflow as tf

    from tests.small_dataset import example

    rng = np.random.default_rng(0)
    for domain in schema.DOMAINS:
        _write_item_table(folder, domain)
    pattern = schema.shard_glob(schema.STAGE2, schema.TRAIN)
    for shard in range(SHARDS):
        path = folder / pattern.replace("*", f"{shard:05d}-of-{SHARDS:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for record in _requests(rng, requests // SHARDS):
                writer.write(example(record))
    sizes = {f"{d}.{schema.ITEM}": {"size": SYNTHETIC_ITEMS} for d in schema.DOMAINS}
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(),
        dataset_hash="synthetic",
        inputs=[],
        options={},
        split={},
        max_history=SYNTHETIC_HISTORY,
        negatives={},
        lines={},
        vocabularies=sizes,
        records={},
        shards={},
        versions={},
    )
    (folder / schema.MANIFEST_FILE).write_text(manifest.to_json())


def _requests(rng: np.random.Generator, count: int) -> Iterator[dict[str, object]]:
    """An item's interest is its id modulo INTERESTS; 7 of 10 clicks are of the user's own."""
    for number in range(count):
        interest = rng.integers(INTERESTS)

        def draw(size: int, own: np.ndarray, interest: int = interest) -> np.ndarray:
            any_item = rng.integers(schema.FIRST_ID, SYNTHETIC_ITEMS - INTERESTS, size)
            return np.where(own, any_item // INTERESTS * INTERESTS + interest, any_item).clip(2)

        history = (SYNTHETIC_HISTORY, rng.random(SYNTHETIC_HISTORY) < 0.7)
        clicked = np.arange(CANDIDATES) == rng.integers(CANDIDATES)
        yield {
            "user_id": f"u{number}".encode(),
            "request_time": 1000,
            "history_time": 900,
            "source_history": draw(*history),
            "target_history": draw(*history),
            "candidates": draw(CANDIDATES, clicked),
            "labels": clicked.astype(int),
            "logged_scores": [],
        }


def _write_item_table(folder: pathlib.Path, domain: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([f"{domain}{i}" for i in range(SYNTHETIC_ITEMS)])
    clicks = pa.array(np.zeros(SYNTHETIC_ITEMS, np.int64))
    path = folder / schema.item_table_path(domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {schema.ITEM: names, schema.TITLE: names, schema.COUNT: clicks}
    pq.write_table(pa.table(columns), path)


def write_real(folder: pathlib.Path) -> None:
    """The data set of the real logs, by the project's own job."""
    logs = pathlib.Path(os.environ["SITN_REAL_DATA"]) / REAL
    command = [sys.executable, "-m", "pipelines.build_dataset", f"--output={folder}"]
    command += [f"--source_log={logs}/clicks-kitchen.jsonl.gz"]
    command += [f"--target_log={logs}/clicks-food.jsonl.gz"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_rows(data_dir: pathlib.Path, path: pathlib.Path, requests: int) -> None:
    """The first requests of the training split as rows of one candidate, for the competitors."""
    from sitn_tf import data

    batches = data.read_split(data_dir, schema.STAGE2, schema.TRAIN, requests)
    batch = {name: tensor.numpy() for name, tensor in next(iter(batches)).items()}
    history, candidates = batch["target_history"], batch["candidates"]
    real = candidates != schema.PAD_ID
    request = np.nonzero(real)[0]
    np.savez(
        path,
        history=history[request],
        length=(history != schema.PAD_ID).sum(axis=1)[request],
        request=request,
        item=candidates[real],
        label=batch["labels"][real],
    )


def train_ours(program: str, data_dir: pathlib.Path, batch_size: int, seconds: float) -> None:
    """The worker of this project's programs; answers as those of training_baselines do."""
    from tests.benchmarks.training_baselines import serve

    def make():
        return make_reader(data_dir, batch_size) if program == "records" else make_trainer()

    def make_trainer():
        from sitn_tf import config, runs, sections
        from sitn_tf.distributed import replicas
        from sitn_tf.models.registry import make_scorer
        from sitn_tf.optimizers.row_sparse import RowSparseAdam
        from sitn_tf.training import train_loop
        from tests.click_step import make_click_step

        sitn = program == "sitn"
        # As the competitors' DIN is set: sigmoids in the unit, ReLU in the MLP.
        like_theirs = {"unit_widths": UNIT, "unit_activation": "sigmoid", "mlp_activation": "relu"}
        settings = config.Config(
            model=sections.ModelConfig(
                name="sitn" if sitn else "din", embedding_dim=DIM, use_source=program != "din"
            ),
            items=sections.ItemsConfig(side_features=()),
            mlp=sections.MlpConfig(widths=MLP),
            encoder=sections.EncoderConfig(**{"heads": HEADS} if sitn else {}),
            din=sections.DinConfig(**{} if sitn else like_theirs),
        )
        manifest = schema.read_manifest(data_dir)
        strategy = replicas.make_strategy()
        with strategy.scope():
            scorer = make_scorer(
                settings, runs.read_tables(data_dir, manifest, settings), manifest.max_history
            )
            optimizer = RowSparseAdam(learning_rate=1e-3)
            optimizer.build(scorer.trainable_variables)
        step = train_loop.traced_once(make_click_step(strategy, scorer, optimizer))
        batches = _forever(data_dir, batch_size)

        def turn(seconds: float) -> tuple[int, float]:
            end, losses, candidates = time.monotonic() + seconds, [], 0
            while not losses or time.monotonic() < end:
                batch = next(batches)
                losses.append(step(batch)["loss"])
                candidates += batch["candidates"].shape[0] * CANDIDATES
            return candidates, float(sum(losses)) / len(losses)

        return turn

    serve(make, seconds)


def _forever(data_dir: pathlib.Path, batch_size: int) -> Iterator[dict]:
    """Batches of one epoch after another, as the training loop reads them."""
    from sitn_tf import data

    epoch = 0
    while True:
        yield from data.read_epoch(data_dir, schema.STAGE2, batch_size, 0, epoch)
        epoch += 1


def make_reader(data_dir: pathlib.Path, batch_size: int):
    """The input pipeline alone."""
    batches = _forever(data_dir, batch_size)

    def turn(seconds: float) -> tuple[int, float]:
        end, candidates = time.monotonic() + seconds, 0
        while not candidates or time.monotonic() < end:
            candidates += next(batches)["candidates"].shape[0] * CANDIDATES
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


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Of a process tree, its ended children included."""
    ticks = 0
    for process in descendants(pid):
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """Peaks of resident memory of a process tree, added up."""
    total = 0
    for process in descendants(pid):
        for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
    return total / 1024


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
            command += [f"--batch={options.rows}", f"--dim={DIM}", f"--heads={HEADS}"]
            command += ["--mlp", *map(str, MLP), "--unit", *map(str, UNIT)]
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
            f"  {program:<12} {median(program, 'rate'):>10,.0f} "
            f"({median(program, 'cpu_rate'):>10,.0f}) {found['peak_megabytes']:>7,.0f}   "
            f"{found['first_loss']:.4f} {found['turns'][-1]['loss']:.4f}"
        )
    for ours, theirs in (*RATIOS, ("records", "sitn"), ("records", "din")):
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


def compare_compression(folder: pathlib.Path, requests: int, rounds: int) -> None:
    """Prints size and reading rate of the synthetic records, plain and gzipped."""
    import tensorflow as tf

    from sitn_tf import data

    def read(path: pathlib.Path, compression: str) -> float:
        files = sorted(str(file) for file in (path / schema.STAGE2).iterdir())
        records = tf.data.TFRecordDataset(files, compression)
        batches = records.batch(256).map(data.parse_stage2).prefetch(2)
        began = time.process_time()
        for _ in batches:
            pass
        return requests * CANDIDATES / (time.process_time() - began)

    kinds = ("", "GZIP")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        write_synthetic(folder / f"records{kind}", requests, kind)
    for _ in range(rounds):
        for kind in kinds:
            rates[kind].append(read(folder / f"records{kind}", kind))
    print("\nrecords: bytes a request, candidates a CPU second")
    for kind in kinds:
        files = (folder / f"records{kind}" / schema.STAGE2).iterdir()
        size = sum(file.stat().st_size for file in files) / requests
        print(f"  {kind or 'plain':<6} {size:>6,.0f} {statistics.median(rates[kind]):>10,.0f}")


def compare_encoders(rounds: int, heads: int, dim: int = 64, batch: int = 1024) -> None:
    """Prints the rate of stage 1's encoders, forward and backward, beside a large product's.

    Counted are the products of Eq. 1: four projections, Q K^T and its values, and twice as
    many backwards.
    """
    import tensorflow as tf

    from sitn_tf.layers.encoder import SequenceEncoder
    from sitn_tf.sections import EncoderConfig

    length = SYNTHETIC_HISTORY
    encoder = SequenceEncoder(EncoderConfig(heads=heads), dim, length)
    sequence = tf.random.normal([batch, length, dim])
    mask = tf.ones([batch, length], tf.bool)
    encoder(sequence, mask)
    square = tf.random.normal([2048, 2048])

    @tf.function
    def encode() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(sequence)
            total = tf.reduce_sum(encoder(sequence, mask) ** 2)
        gradients = tape.gradient(total, [sequence, *encoder.trainable_variables])
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    @tf.function
    def multiply() -> tf.Tensor:
        return tf.matmul(square, square)[0, 0]

    counted = {
        encode: 3 * 2 * batch * (4 * length * dim**2 + 2 * length**2 * dim),
        multiply: 2 * 2048**3,
    }
    rates: dict = {program: [] for program in counted}
    for _ in range(rounds + 1):
        for program, operations in counted.items():
            wall, spent = time.monotonic(), time.process_time()
            program().numpy()
            wall, spent = time.monotonic() - wall, time.process_time() - spent
            rates[program].append((operations / wall / 1e9, operations / spent / 1e9))
    ours, product = (np.array(rates[program][1:]) for program in counted)
    share = np.median(ours / product, axis=0)
    medians = (*np.median(ours, axis=0), *np.median(product, axis=0))
    print(
        "\nencoders, {} heads: {:.0f} GFLOP/s ({:.0f} a CPU second) of {:.0f} ({:.0f}): "
        "{:.0%} ({:.0%})".format(heads, *medians, *share)
    )


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
            compare_compression(pathlib.Path(folder), options.requests, options.rounds)
            for heads in (HEADS, 1):
                compare_encoders(options.rounds, heads)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
