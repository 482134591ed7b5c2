"""What a training step costs beside a table of 10^5 and of 10^7 rows, the same ids touched.

    python -m tests.benchmarks.step_cost [--optimizer=adagrad] [--replicas=2] [--spread]

Prints the median time of a step for both sizes and their ratio, which is 1 where no step does
work proportional to the table; and what the process holds beside weights and slots. The sizes
take turns, so that a busy machine slows both. With --spread the touched ids lie all over each
table: as many rows, but in the large one hardly any of them in a cache or on a known page.
"""

import sitn_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import pathlib
import statistics
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from sitn_tf import cli
from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import make_strategy, separate_replicas, split_rows
from sitn_tf.optimizers.ftrl import beside_ftrl
from sitn_tf.optimizers.row_sparse import make_optimizer
from sitn_tf.sections import Stage2Config, WideConfig
from sitn_tf.training import steps

FLAGS = flags.FlagValues()
_OPTIMIZER = flags.DEFINE_string("optimizer", "adam", "adam, adagrad or ftrl.", flag_values=FLAGS)
_REPLICAS = flags.DEFINE_integer("replicas", 1, "Logical devices.", 1, flag_values=FLAGS)
_ROWS = flags.DEFINE_list("rows", ["100000", "10000000"], "Of the table.", flag_values=FLAGS)
_DIM = flags.DEFINE_integer("dim", 8, "Of a row.", 1, flag_values=FLAGS)
_SPREAD = flags.DEFINE_bool("spread", False, "Ids from the whole table.", flag_values=FLAGS)
_STEPS = flags.DEFINE_integer("steps", 20, "Of a turn.", 1, flag_values=FLAGS)
_TURNS = flags.DEFINE_integer("turns", 15, "Of each size.", 1, flag_values=FLAGS)

BATCH, HISTORY = 256, 50
TOUCHABLE = 50_000


class Trainer:
    """Steps on the mean of embedded histories, clipped, as `sitn_tf.training` makes them.

    Args:
      rows: of the table, of which `TOUCHABLE` are ever touched.
      span: the ids below it are, as evenly as they go.
      dim: of a row.
      optimizer: name in the configuration.
      strategy: of the replicas.
    """

    def __init__(
        self, rows: int, span: int, dim: int, optimizer: str, strategy: tf.distribute.Strategy
    ) -> None:
        self.strategy = strategy
        with strategy.scope():
            table = tables.mark(tf.Variable(lambda: tf.zeros([rows, dim]), name="source_items/ids"))
            kernel = tf.Variable(tf.ones([dim, 1]), name="kernel")
            of_kernel = "adam" if optimizer == "ftrl" else optimizer
            self.optimizer = make_optimizer(Stage2Config(optimizer=of_kernel), None)
            if optimizer == "ftrl":
                self.optimizer = beside_ftrl(self.optimizer, [table], WideConfig())
            self.optimizer.build([table, kernel])
        separate_replicas([table, kernel, *self.optimizer.variables])

        def losses(batch: dict[str, tf.Tensor], step: tf.Tensor) -> steps.Losses:
            logits = tf.reduce_mean(tables.read_rows(table, batch["ids"]), axis=1) @ kernel
            return {"loss": tf.reduce_sum(tf.square(logits - batch["label"])) / BATCH}

        self.step = steps.traced_once(
            steps.make_step(strategy, [table, kernel], self.optimizer, losses, clip_norm=1.0)
        )
        self.held = sum(
            np.prod(v.shape) * v.dtype.size for v in (table, kernel, *self.optimizer.variables)
        )
        rng = np.random.default_rng(0)
        touchable = np.linspace(0, span - 1, TOUCHABLE).astype(np.int64)
        self.batches = [
            {
                "ids": tf.constant(touchable[rng.integers(0, TOUCHABLE, (BATCH, HISTORY))]),
                "label": tf.constant(rng.integers(0, 2, (BATCH, 1)), tf.float32),
            }
            for _ in range(8)
        ]

    def turn(self, steps: int) -> float:
        """Seconds a step."""
        started = time.perf_counter()
        for number in range(steps):
            found = self.step(split_rows(self.strategy, self.batches[number % 8]))
        float(found["loss"])
        return (time.perf_counter() - started) / steps


def measure(
    rows: Sequence[int],
    spread: bool,
    dim: int,
    optimizer: str,
    replicas: int,
    steps: int,
    turns: int,
) -> list[float]:
    """Median seconds a step for each number of rows."""
    strategy = make_strategy(replicas)
    before = _resident("VmRSS")
    trainers = [
        Trainer(number, number if spread else min(rows), dim, optimizer, strategy)
        for number in rows
    ]
    for trainer in trainers:
        trainer.turn(2)
    times: list[list[float]] = [[] for _ in trainers]
    for _ in range(turns):
        for trainer, found in zip(trainers, times, strict=True):
            found.append(trainer.turn(steps))
    held = replicas * sum(trainer.held for trainer in trainers)
    medians = [statistics.median(found) for found in times]
    for number, median in zip(rows, medians, strict=True):
        print(f"{number:>12,} rows  {1000 * median:8.2f} ms a step")
    print(
        f"memory: {held / 1e6:,.0f} MB of weights and slots; the process grew by "
        f"{(_resident('VmRSS') - before) / 1e6:,.0f} MB, by "
        f"{(_resident('VmHWM') - before) / 1e6:,.0f} MB while it made them"
    )
    return medians


def _resident(field: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or has held at most (VmHWM)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(kilobytes)


def main(_: list[str]) -> None:
    rows = [int(number) for number in _ROWS.value]
    medians = measure(
        rows,
        _SPREAD.value,
        _DIM.value,
        _OPTIMIZER.value,
        _REPLICAS.value,
        _STEPS.value,
        _TURNS.value,
    )
    print(f"ratio {medians[-1] / medians[0]:.3f}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
