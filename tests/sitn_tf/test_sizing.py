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
    report = sizing.report(68_000_000, 64, [100_000])
    assert re.search(r"full +- +68000002 +48\.64 +16\.21", report)
    assert re.search(r"hash +100000 +100002 +0\.07 +0\.02", report)
    assert re.search(r"quotient_remainder +100000 +100684 +0\.07 +0\.02", report)


def test_report_of_parameter_servers(monkeypatch):
    monkeypatch.setitem(sizing.PROCESS_GIBIBYTES, "parameter server", 0.5)
    # Two ids are reserved: 2^24 rows of 64 float32 are 4 GiB, with Adam's slots 12 GiB, and an
    # accumulator a row makes 4 + 4/64. On four servers 0.5 GiB of a process and 3, or 1.015625;
    # while they restore, a quarter of the table lies there twice.
    report = sizing.report(2**24 - 2, 64, [100_000], servers=4)
    assert re.search(r"full +- +16777216 +12\.00 +4\.00 +3\.50 +4\.50", report)
    report = sizing.report(2**24 - 2, 64, [100_000], "adagrad", servers=4)
    assert re.search(r"full +- +16777216 +4\.06 +4\.00 +1\.52 +2\.52", report)
    assert "without tables: 0.50 GiB a parameter server" in report
