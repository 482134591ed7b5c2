"""What id embeddings weigh, and what each process of a cluster holds, before anything is trained.

    python -m sitn_tf.sizing --items=68000000 --dim=64
    python -m sitn_tf.sizing --items=54800000 --items=13100000 --servers=8 --optimizer=adagrad

A line for the whole tables, and one for each number of shared rows in their place; with servers a
line for each kind of process below them.

What a process of a cluster holds is

    server    itself + (tables + slots + what is known of items) / servers
    at most   itself + twice that: a continued run reads its checkpoint beside what it has made
    worker    itself: no table is there
    chief     itself + what is known of items + their ids and titles

and nothing is given back: TensorFlow keeps for later tensors what one of them has left. So a server
holds what it took to make the tables where that is more, as with Adagrad's few slots: a domain's
are there twice while they are made, beside the earlier one's.
`PROCESS_GIBIBYTES` was measured (BUILD_NOTES.md, "Memory of a cluster") with batches of 64
requests, histories of 100 and the default preset: larger ones need more of workers, and of the
chief, which validates.
"""

import typing
from collections.abc import Sequence

from absl import flags

from sitn_tf import cli, schema
from sitn_tf.sections import ItemsConfig, TrainingConfig

FLAGS = flags.FlagValues()
_ITEMS = flags.DEFINE_multi_integer(
    "items", [68_000_000], "Items of a domain.", 1, flag_values=FLAGS
)
_DIM = flags.DEFINE_integer(
    "dim", 64, "Numbers of an embedding, model.embedding_dim.", 1, flag_values=FLAGS
)
_ROWS = flags.DEFINE_multi_integer(
    "rows",
    [100_000, 1_000_000, 10_000_000],
    "Rows that items share, items.id_rows.",
    1,
    flag_values=FLAGS,
)
_SERVERS = flags.DEFINE_integer(
    "servers", 0, "Parameter servers, over which tables are sharded; 0: none.", 0, flag_values=FLAGS
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer",
    "adam",
    typing.get_args(typing.get_type_hints(TrainingConfig)["optimizer"]),
    "Whose slots lie beside the weights.",
    flag_values=FLAGS,
)

ADAM_SLOTS = 2
"""Momentum and velocity, a number of each for every weight."""

BYTES = 4
"""Of a weight, and of a side feature's id."""

STRING_BYTES = 68
"""Of an item's raw id and title, where they lie, and its clicks: some 12 and 40 letters."""

PROCESS_GIBIBYTES = {"ps": 0.76, "worker": 0.82, "chief": 1.00}
"""What a process holds beside tables and items, by TF_CONFIG's task types: mostly TensorFlow."""


ACCURACY = 0.1
"""What each process held of a run that had no part in `PROCESS_GIBIBYTES` was within this share of
what is said."""


class Memory(typing.NamedTuple):
    """GiB of a process.

    Attributes:
      trains: while a run trains that was not continued.
      most: in a continued run.
    """

    trains: float
    most: float


def slots_of(optimizer: str, dim: int) -> float:
    """Numbers that an optimizer keeps of a table, for each of its weights."""
    return ADAM_SLOTS if optimizer == "adam" else 1 / dim


def gibibytes(rows: int, dim: int, slots: float = ADAM_SLOTS) -> float:
    """GiB of a float32 table of `rows` and so many times its numbers in the optimizer's slots."""
    return rows * dim * BYTES * (1 + slots) / 2**30


def rows_of(items: Sequence[int], config: ItemsConfig) -> list[int]:
    """Rows of each domain's tables of ids."""
    return [sum(config.table_rows(known + schema.FIRST_ID)) for known in items]


def known_gibibytes(items: int, config: ItemsConfig) -> float:
    """GiB of the ids of items' side features, as if every one had a vocabulary; no vectors."""
    numbers = {schema.TITLE_WORDS: config.title_words, schema.VECTOR: 0}
    return gibibytes(items, sum(numbers.get(f, 1) for f in config.side_features), slots=0)


def cluster(
    items: Sequence[int], config: ItemsConfig, dim: int, optimizer: str, servers: int
) -> dict[str, Memory]:
    """What each process of a cluster holds, by task type: "ps", "worker" and "chief".

    Args:
      items: of each domain.
      dim: of embeddings.
      optimizer: "adam" or "adagrad".
      servers: over which tables are cut into equal shards.
    """
    rows, known = rows_of(items, config), known_gibibytes(sum(items), config)
    share = (gibibytes(sum(rows), dim, slots_of(optimizer, dim)) + known) / servers
    made = max(sum(rows[:number]) + 2 * own for number, own in enumerate(rows))
    while_made = (gibibytes(made, dim, slots=0) + known) / servers
    own = PROCESS_GIBIBYTES
    chief = own["chief"] + known + sum(items) * STRING_BYTES / 2**30
    return {
        "ps": Memory(own["ps"] + max(share, while_made), own["ps"] + 2 * share),
        "worker": Memory(own["worker"], own["worker"]),
        "chief": Memory(chief, chief),
    }


def report(
    items: Sequence[int],
    dim: int,
    choices: Sequence[int],
    optimizer: str = "adam",
    servers: int = 0,
) -> str:
    """A line for each way to embed so many items of each domain; with servers, what each holds."""
    header = f"{'id_embedding':<20} {'id_rows':>12} {'rows':>12} {'GiB':>8} {'GiB serving':>12}"
    lines = [header + (f" {'GiB a server':>13} {'at most':>8}" if servers else "")]
    slots = slots_of(optimizer, dim)
    for kind in typing.get_args(typing.get_type_hints(ItemsConfig)["id_embedding"]):
        for shared in choices if kind != "full" else choices[:1]:
            config = ItemsConfig(id_embedding=kind, id_rows=shared)
            rows = sum(rows_of(items, config))
            trained, served = gibibytes(rows, dim, slots), gibibytes(rows, dim, slots=0)
            line = f"{kind:<20} {shared if kind != 'full' else '-':>12} {rows:>12}"
            line += f" {trained:>8.2f} {served:>12.2f}"
            if servers:
                server = cluster(items, config, dim, optimizer, servers)["ps"]
                line += f" {server.trains:>13.2f} {server.most:>8.2f}"
            lines.append(line)
    if servers:
        lines += _beside(items, cluster(items, ItemsConfig(), dim, optimizer, servers), servers)
    return "\n".join(lines)


def _beside(items: Sequence[int], held: dict[str, Memory], servers: int) -> list[str]:
    """What the table of a cluster means, and what the processes without tables hold."""
    return [
        f"GiB a server: of each of {servers}, with its part of the tables, their slots and the "
        "items' side features; at most: where a run is continued, as long as it trains",
        f"GiB a worker: {held['worker'].most:.2f}, whatever the tables",
        f"GiB of the chief: {held['chief'].most:.2f}, with the side features, ids and titles of "
        f"{sum(items):,} items",
        f"A small cluster was within {100 * ACCURACY:.0f} % of this: give each process a quarter "
        "more.",
    ]


def main(_: list[str]) -> None:
    print(report(_ITEMS.value, _DIM.value, _ROWS.value, _OPTIMIZER.value, _SERVERS.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
