"""Memory of each process of a cluster beside what `sitn_tf.sizing` says of it.

    python -m tests.benchmarks.cluster_memory --data_dir=quickstart/data

For each choice of items, dimensions, optimizer and servers: the data set with so many rows in its
item tables, stage 2 from scratch with two workers on loopback, stopped behind the first epoch and
given again, so that servers restore once. Printed: what a process held while it trained at first
(VmRSS, the most of looks half a second apart), what it held at most (VmHWM, of both times), the
prediction and its error. `sizing`'s constants are from the choices that say "fit"; those that say
"judge" had no part in them.
"""

import json
import pathlib
import re
import signal
import tempfile
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from sitn_tf import cli, schema, sizing
from sitn_tf.distributed.parameter_servers import NAMES
from sitn_tf.pages import markdown
from sitn_tf.pages.page import Section, Table
from sitn_tf.sections import ItemsConfig
from tests.sitn_tf.distributed.processes import Cluster

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
_ONLY = flags.DEFINE_multi_integer("only", [], "Choices by number, from 0.", flag_values=FLAGS)


class Choice(NamedTuple):
    """What is trained on how many servers.

    Attributes:
      use: "fit" where `sizing`'s constants are from it, else "judge".
      items: of the source's and the target's vocabulary.
    """

    use: str
    items: tuple[int, int]
    dim: int
    optimizer: str
    servers: int

    def __str__(self) -> str:
        items = " + ".join(f"{n:,}" for n in self.items)
        return f"{self.use}: {items} items x {self.dim}, {self.optimizer}, {self.servers} servers"


CHOICES = (
    Choice("fit", (2_002, 1_502), 32, "adam", 2),
    Choice("fit", (1_000_000, 500_000), 32, "adam", 2),
    Choice("judge", (2_000_000, 1_000_000), 64, "adam", 2),
    Choice("judge", (1_500_000, 1_500_000), 64, "adagrad", 2),
    Choice("judge", (3_000_000, 500_000), 16, "adam", 3),
)

LONGEST = 1800.0
"""Seconds until an epoch has ended."""

Held = dict[tuple[str, int], float]
"""GiB by task."""


def padded(data_dir: pathlib.Path, items: tuple[int, int], folder: pathlib.Path) -> pathlib.Path:
    """A data set with more items, which no record names; its records are those of `data_dir`."""
    (folder / "items").mkdir(parents=True)
    manifest = json.loads((data_dir / schema.MANIFEST_FILE).read_text())
    for domain, size in zip(schema.DOMAINS, items, strict=True):
        table = pq.read_table(data_dir / schema.item_table_path(domain))
        known = table.num_rows - schema.FIRST_ID
        more = np.arange(size - table.num_rows)
        rows = table.take(schema.FIRST_ID + more % known)
        names = pa.array([f"{domain[0]}more{n:07}" for n in more])
        column = table.column_names.index(schema.ITEM)
        rows = rows.set_column(column, schema.ITEM, names).cast(table.schema)
        pq.write_table(pa.concat_tables([table, rows]), folder / schema.item_table_path(domain))
        manifest["vocabularies"][schema.vocabulary_name(domain, schema.ITEM)]["size"] = size
    for part in (schema.STAGE1, schema.STAGE2, "vocabularies"):
        (folder / part).symlink_to(data_dir / part)
    (folder / schema.MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def measure(choice: Choice, data_dir: pathlib.Path, folder: pathlib.Path) -> tuple[Held, Held]:
    """Trains an epoch, stops, goes on → what tasks held in the first epoch, and at most."""
    settings = (
        f"model.embedding_dim={choice.dim}",
        f"stage2.optimizer={choice.optimizer}",
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
                if epoch == 1 and re.search(r"epoch 1/2: +[1-9]", cluster.said("chief")):
                    _look(cluster, trains, "VmRSS")
                time.sleep(0.5)
            _look(cluster, most, "VmHWM")
            cluster.started["chief", 0].send_signal(signal.SIGTERM)
            cluster.wait(LONGEST)
    return trains, most


def _look(cluster: Cluster, held: Held, field: str) -> None:
    """Raises what is held to what the processes hold now."""
    for who, process in cluster.started.items():
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        if found:
            held[who] = max(held.get(who, 0.0), int(found[1]) / 2**20)


def rows_of(choice: Choice, trains: Held, most: Held) -> list[tuple[str, ...]]:
    """A row a process: measured, predicted and error, while it trained and at most."""
    cluster = sizing.cluster(
        choice.items, ItemsConfig(), choice.dim, choice.optimizer, choice.servers
    )
    rows = []
    for who, said in ((who, cluster[who[0]]) for who in trains):
        found = trains[who], most[who]
        cells = [f"{measured:.2f}" for measured in found] + [f"{gib:.2f}" for gib in said]
        errors = [f"{gib / measured - 1:+.0%}" for gib, measured in zip(said, found, strict=True)]
        rows.append((str(choice), f"{NAMES[who[0]]} {who[1]}", *cells, *errors))
    return rows


def main(_: list[str]) -> None:
    """Prints the rows of each choice as they come, and the table."""
    data_dir = pathlib.Path(cli.require(FLAGS, "data_dir")).resolve()
    rows = []
    for number in _ONLY.value or range(len(CHOICES)):
        choice = CHOICES[number]
        with tempfile.TemporaryDirectory(prefix="cluster_memory_") as temporary:
            folder = pathlib.Path(temporary)
            more = padded(data_dir, choice.items, folder / "data")
            found = rows_of(choice, *measure(choice, more, folder))
        print(*map(" | ".join, found), sep="\n", flush=True)
        rows += found
    head = ("choice", "process", "trains", "at most", "predicted", "at most", "error", "at most")
    table = Table("GiB", head, rows)
    print(markdown.document("Memory of a cluster", "", [Section("By process", "", [table])]))


if __name__ == "__main__":
    cli.run(main, FLAGS)
