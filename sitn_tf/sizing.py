"""What id embeddings weigh on every replica, before anything is trained.

    python -m sitn_tf.sizing --items=68000000 --dim=64

A line for the whole table, and one for each number of shared rows in its place.
"""

import typing
from collections.abc import Sequence

from absl import flags

from sitn_tf import cli, schema
from sitn_tf.sections import ItemsConfig

FLAGS = flags.FlagValues()
_ITEMS = flags.DEFINE_integer("items", 68_000_000, "Of a vocabulary.", 1, flag_values=FLAGS)
_DIM = flags.DEFINE_integer("dim", 64, "Dimensions, model.embedding_dim.", 1, flag_values=FLAGS)
_ROWS = flags.DEFINE_multi_integer(
    "rows", [100_000, 1_000_000, 10_000_000], "Of items.id_rows.", 1, flag_values=FLAGS
)

ADAM_SLOTS = 2
"""Momentum and velocity, a number of each for every weight."""

BYTES = 4


def gibibytes(rows: int, dim: int, slots: int = ADAM_SLOTS) -> float:
    """GiB of a float32 table of `rows` and the optimizer's slots of the same shape."""
    return rows * dim * BYTES * (1 + slots) / 2**30


def report(items: int, dim: int, choices: Sequence[int]) -> str:
    """A line for each way to embed so many items."""
    lines = [f"{'id_embedding':<20} {'id_rows':>12} {'rows':>12} {'GiB':>8} {'GiB serving':>12}"]
    size = items + schema.FIRST_ID
    for kind in typing.get_args(typing.get_type_hints(ItemsConfig)["id_embedding"]):
        for rows in choices if kind != "full" else choices[:1]:
            total = sum(ItemsConfig(id_embedding=kind, id_rows=rows).table_rows(size))
            weights = f"{gibibytes(total, dim):>8.2f} {gibibytes(total, dim, slots=0):>12.2f}"
            lines.append(f"{kind:<20} {rows if kind != 'full' else '-':>12} {total:>12} {weights}")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    print(report(_ITEMS.value, _DIM.value, _ROWS.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
