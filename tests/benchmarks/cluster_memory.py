"""Memory of each process of a cluster beside what `sitn_tf.sizing` says of it.

    python -m tests.benchmarks.cluster_memory --data_dir=quickstart/data [--set=...]

Each choice of rows, dimensions, optimizer and servers trains stage 2 with two workers on loopback,
stops after the first epoch and goes on, so that servers restore once. Ids of both domains are
hashed to so many rows: tables of any size from a small data set. Printed: what a process held
while it trained (VmRSS, the most of looks a second apart) and at most (VmHWM, while it restored),
and the prediction's error. The constants of `sizing.PROCESS_GIBIBYTES` are from the rows "fit";
those that say "judge" had no part in them.
"""

import pathlib
import re
import signal
import tempfile
import time
from typing import NamedTuple

from absl import flags

from sitn_tf import cli, markdown, schema, sizing
from sitn_tf.page import Section, Table
from tests.sitn_tf.distributed.processes import Cluster

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
_ONLY = flags.DEFINE_multi_integer("only", [], "Choices by number, from 0.", flag_values=FLAGS)


class Choice(NamedTuple):
    """Tables and servers.

    Attributes:
      use: "fit" where the constants are from it, else "judge".
      rows: of each domain's table of ids.
    """

    use: str
    rows: int
    dim: int
    optimizer: str
    servers: int

    @property
    def predicted(self) -> tuple[float, float]:
        """GiB of a server while it trains, and at most."""
        size, slots = self.rows + schema.FIRST_ID, sizing.slots_of(self.optimizer, self.dim)
        tables = len(schema.DOMAINS) * sizing.gibibytes(size, self.dim, slots)
        largest = sizing.gibibytes(size, self.dim, slots=0)
        return sizing.server_gibibytes(tables, largest, self.servers)


CHOICES = (
    Choice("fit", 100_000, 32, "adam", 2),
    Choice("fit", 2_000_000, 32, "adam", 2),
    Choice("judge", 1_000_000, 64, "adagrad", 1),
    Choice("judge", 3_000_000, 16, "adam", 3),
    Choice("judge", 1_000_000, 32, "adam", 2),
    Choice("judge", 100_000, 16, "adagrad", 3),
)

LONGEST = 3600.0
Held = dict[tuple[str, int], float]
"""GiB by task."""


def measure(choice: Choice, data_dir: pathlib.Path, folder: pathlib.Path) -> tuple[Held, Held]:
    """Trains an epoch, stops, goes on → the most that each task held while training, and at all."""
    settings = (
        "items.id_embedding=hash",
        f"items.id_rows={choice.rows}",
        f"model.embedding_dim={choice.dim}",
        f"stage2.optimizer={choice.optimizer}",
        "stage2.race_steps=0",
        "stage2.epochs=2",
        "stage2.patience=9",
    )
    command = ("sitn_tf.train", "--stage=2", "--init=none", f"--data_dir={data_dir}")
    command += (f"--workdir={folder}/run", *(f"--set={setting}" for setting in settings))
    trains: Held = {}
    most: Held = {}
    for epoch in (1, 2):
        tasks = {"ps": choice.servers, "worker": 2, "chief": 1}
        with Cluster(folder / f"said-{epoch}", **tasks) as cluster:
            cluster.start_all(*command)
            deadline = time.monotonic() + LONGEST
            while not re.search(rf"epoch +{epoch}  auc", cluster.said("chief")):
                if cluster.started["chief", 0].poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(cluster.said("chief")[-2000:])
                if re.search(rf"epoch {epoch}/2: +[1-9]", cluster.said("chief")):
                    _look(cluster, trains, "VmRSS")
                _look(cluster, most, "VmHWM")
                time.sleep(1.0)
            cluster.started["chief", 0].send_signal(signal.SIGTERM)
            cluster.wait(LONGEST)
    return trains, most


def _look(cluster: Cluster, held: Held, field: str) -> None:
    """Raises what is held to what the processes hold now; one that has ended is passed over."""
    for who, process in cluster.started.items():
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        if found:
            held[who] = max(held.get(who, 0.0), int(found[1]) / 2**20)


def rows_of(choice: Choice, trains: Held, most: Held) -> list[tuple[str, ...]]:
    """A row a process and moment: measured, predicted, error."""
    while_training, at_most = choice.predicted
    name = (
        f"{choice.use}: {choice.rows:,} x {choice.dim}, {choice.optimizer}, "
        f"{choice.servers} server{'s' if choice.servers > 1 else ''}"
    )
    kinds = {"ps": "parameter server", "worker": "worker", "chief": "chief"}
    rows = []
    for who, measured in trains.items():
        fixed = sizing.PROCESS_GIBIBYTES[kinds[who[0]]]
        rows.append((name, *who, "trains", measured, while_training if who[0] == "ps" else fixed))
    for who, measured in most.items():
        if who[0] == "ps":
            rows.append((name, *who, "at most", measured, at_most))
    return [
        (
            name,
            f"{kinds[job]} {task}",
            when,
            f"{found:.2f}",
            f"{said:.2f}",
            f"{said / found - 1:+.0%}",
        )
        for name, job, task, when, found, said in rows
    ]


def main(_: list[str]) -> None:
    """Prints the rows of each choice as they come, and the table."""
    data_dir = pathlib.Path(cli.require(FLAGS, "data_dir")).resolve()
    rows = []
    for number in _ONLY.value or range(len(CHOICES)):
        with tempfile.TemporaryDirectory(prefix="cluster_memory_") as folder:
            held = measure(CHOICES[number], data_dir, pathlib.Path(folder))
        found = rows_of(CHOICES[number], *held)
        print(*map(" | ".join, found), sep="\n", flush=True)
        rows += found
    head = ("tables of each domain", "process", "when", "GiB", "predicted", "error")
    table = Table("two workers, quickstart's data", head, rows)
    print(markdown.document("Memory of a cluster", "", [Section("By process", "", [table])]))


if __name__ == "__main__":
    cli.run(main, FLAGS)
