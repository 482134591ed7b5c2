"""What id embeddings weigh."""

import re

import numpy as np
import pytest

from sitn_tf import sizing
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.embedding import ItemEmbedding
from sitn_tf.sections import ItemsConfig


def test_gibibytes_golden():
    # 2^28 rows of one float32 are 1 GiB; Adam's two slots make it three.
    assert sizing.gibibytes(2**28, 1) == 3.0
    assert sizing.gibibytes(2**28, 1, slots=0) == 1.0


@pytest.mark.parametrize("kind", ["full", "hash", "quotient_remainder"])
@pytest.mark.parametrize("size", [2, 12, 13])
def test_rows_are_those_of_the_tables_that_are_made(kind, size):
    table = ItemTable("source", [""] * size, [""] * size, np.zeros(size), {}, {})
    config = ItemsConfig(id_embedding=kind, id_rows=5)
    layer = ItemEmbedding(table, config, 4)
    layer.build(None)
    made = tuple(variable.shape[0] for variable in layer.id_variables)
    assert made == config.table_rows(size)


def test_report_of_the_papers_items():
    # 68,000,002 rows of 64 float32, three times: 48.64 GiB. Quotients of 100,000: 680 rows.
    report = sizing.report([68_000_000], 64, [100_000])
    assert re.search(r"full +- +68000002 +48\.64 +16\.21", report)
    assert re.search(r"hash +100000 +100002 +0\.07 +0\.02", report)
    assert re.search(r"quotient_remainder +100000 +100684 +0\.07 +0\.02", report)


# Two ids are reserved: 2^24 rows of 64 float32 are 4 GiB, with Adam's slots 12, and with an
# accumulator a row 4 + 4/64. 16 ids of side features are 1 GiB, of which the reserved rows have
# none here.
ITEMS = 2**24 - 2


def test_known_of_items():
    # 12 title words and four categories; vectors, float16 of any width, are not counted.
    assert sizing.known_gibibytes(2**24, ItemsConfig()) == 1.0
    assert sizing.known_gibibytes(2**24, ItemsConfig(title_words=4)) == 0.5
    assert sizing.known_gibibytes(2**24, ItemsConfig(side_features=("brand",))) == 1 / 16


@pytest.mark.parametrize(
    ("items", "optimizer", "trains", "most"),
    [
        # (12 + 1) / 4, and twice that.
        ([ITEMS], "adam", 3.25, 6.5),
        # The table is there twice while it is made: (2 * 4 + 1) / 4; then (4.0625 + 1) / 4.
        ([ITEMS], "adagrad", 2.25, 2.53125),
        # The first one beside two of the second: (4 + 2 * 4 + 2) / 4; (8.125 + 2) / 4, twice.
        ([ITEMS, ITEMS], "adagrad", 3.5, 5.0625),
        # Two of the first are more than it beside two of the second, a table of nearly nothing.
        ([ITEMS, 1], "adagrad", 2.25, 2.53125),
    ],
)
def test_processes_of_a_cluster(items, optimizer, trains, most, monkeypatch):
    monkeypatch.setattr(sizing, "PROCESS_GIBIBYTES", {"ps": 0.5, "worker": 0.6, "chief": 0.7})
    held = sizing.cluster(items, ItemsConfig(), 64, optimizer, servers=4)
    assert held["ps"] == pytest.approx((0.5 + trains, 0.5 + most), abs=1e-5)
    assert held["worker"] == (0.6, 0.6)
    # 68 bytes of strings and clicks beside 64 of side features.
    chief = 0.7 + sum(items) * (64 + 68) / 2**30
    assert held["chief"] == pytest.approx((chief, chief))


def test_report_of_a_cluster(monkeypatch):
    monkeypatch.setattr(sizing, "PROCESS_GIBIBYTES", {"ps": 0.5, "worker": 0.6, "chief": 0.7})
    report = sizing.report([ITEMS], 64, [100_000], servers=4)
    assert re.search(r"full +- +16777216 +12\.00 +4\.00 +3\.75 +7\.00", report)
    assert "GiB a server: of each of 4" in report
    assert "GiB a worker: 0.60" in report
    assert (
        "GiB of the chief: 2.76, with the side features, ids and titles of 16,777,214 items"
        in report
    )


def test_one_accuracy_is_told():
    """Of the judging run's processes in BUILD_NOTES, "Memory of a cluster": −4, −3, −3 and −7 %."""
    assert "A small cluster was within 10 % of this" in sizing.report([1000], 64, [10], servers=2)
    assert "%" not in sizing.__doc__
