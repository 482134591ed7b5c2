"""What id embeddings weigh on every replica or parameter server, before anything is trained.

    python -m sitn_tf.sizing --items=68000000 --dim=64
    python -m sitn_tf.sizing --items=68000000 --dim=64 --servers=8 --optimizer=adagrad

A line for the whole table, and one for each number of shared rows in its place.
"""

import typing
from collections.abc import Sequence

from absl import flags

from sitn_tf import cli, schema
from sitn_tf.sections import ItemsConfig, TrainingConfig

FLAGS = flags.FlagValues()
_ITEMS = flags.DEFINE_integer("items", 68_000_000, "Of a vocabulary.", 1, flag_values=FLAGS)
_DIM = flags.DEFINE_integer("dim", 64, "Dimensions, model.embedding_dim.", 1, flag_values=FLAGS)
_ROWS = flags.DEFINE_multi_integer(
    "rows", [100_000, 1_000_000, 10_000_000], "Of items.id_rows.", 1, flag_values=FLAGS
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

PROCESS_GIBIBYTES = {"parameter server": 0.74, "worker": 0.83, "chief": 1.25}
"""What a process of a cluster holds beside tables (BUILD_NOTES.md, "Beyond one machine")."""


def slots_of(optimizer: str, dim: int) -> float:
    """Numbers that an optimizer keeps of a table, for each of its weights."""
    return ADAM_SLOTS if optimizer == "adam" else 1 / dim


def gibibytes(rows: int, dim: int, slots: float = ADAM_SLOTS) -> float:
    """GiB of a float32 table of `rows` and so many times its numbers in the optimizer's slots."""
    return rows * dim * BYTES * (1 + slots) / 2**30


def server_gibibytes(tables: float, largest: float, servers: int) -> tuple[float, float]:
    """GiB of each parameter server while it trains, and at most, while it restores.

    Args:
      tables: GiB of all tables and their slots.
      largest: of the largest of these: one at a time is read beside what is there.
    """
    held = PROCESS_GIBIBYTES["parameter server"] + tables / servers
    return held, held + largest / servers


def report(
    items: int, dim: int, choices: Sequence[int], optimizer: str = "adam", servers: int = 0
) -> str:
    """A line for each way to embed so many items; with servers, also what one of them holds."""
    header = f"{'id_embedding':<20} {'id_rows':>12} {'rows':>12} {'GiB':>8} {'GiB serving':>12}"
    lines = [header + (f" {'GiB a server':>13} {'at most':>8}" if servers else "")]
    size, slots = items + schema.FIRST_ID, slots_of(optimizer, dim)
    for kind in typing.get_args(typing.get_type_hints(ItemsConfig)["id_embedding"]):
        for rows in choices if kind != "full" else choices[:1]:
            tables = ItemsConfig(id_embedding=kind, id_rows=rows).table_rows(size)
            total = sum(tables)
            trained, served = gibibytes(total, dim, slots), gibibytes(total, dim, slots=0)
            line = f"{kind:<20} {rows if kind != 'full' else '-':>12} {total:>12}"
            line += f" {trained:>8.2f} {served:>12.2f}"
            if servers:
                largest = gibibytes(max(tables), dim, slots=0)
                held, most = server_gibibytes(trained, largest, servers)
                line += f" {held:>13.2f} {most:>8.2f}"
            lines.append(line)
    if servers:
        others = (f"{gib:.2f} GiB a {name}" for name, gib in PROCESS_GIBIBYTES.items())
        lines.append(f"without tables: {', '.join(others)}")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    print(report(_ITEMS.value, _DIM.value, _ROWS.value, _OPTIMIZER.value, _SERVERS.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
