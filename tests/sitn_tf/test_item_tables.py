"""Item tables are read some rows at a time, to the same arrays however many that are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sitn_tf import item_tables, schema
from tests.small_dataset import SOURCE_ITEMS, VECTOR_DIM, write_small_dataset

WORDS = 2


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("data"), vectors=(schema.SOURCE,))


@pytest.mark.parametrize("rows_at_a_time", [1, 7, 1000])
def test_the_parts_make_the_table(small, rows_at_a_time, monkeypatch):
    monkeypatch.setattr(item_tables, "ROWS_AT_A_TIME", rows_at_a_time)
    manifest = schema.read_manifest(small)
    read = item_tables.read_item_table(
        small, manifest, schema.SOURCE, schema.SIDE_FEATURES, title_words=WORDS
    )
    rows = pq.read_table(small / schema.item_table_path(schema.SOURCE)).to_pylist()
    assert read.size == len(rows) == SOURCE_ITEMS
    assert list(read.ids) == [row[schema.ITEM] for row in rows]
    assert list(read.titles) == [row[schema.TITLE] for row in rows]
    assert read.count.tolist() == [row[schema.COUNT] for row in rows]
    # No vocabulary of the other categories: they are left out.
    assert read.features.keys() == {schema.TITLE_WORDS, "brand"}
    assert read.features["brand"].tolist() == [row["brand"] for row in rows]
    words = [(row[schema.TITLE_WORDS] + [0, 0])[:WORDS] for row in rows]
    assert read.features[schema.TITLE_WORDS].tolist() == words
    assert {ids.dtype for ids in read.features.values()} == {np.dtype(np.int32)}
    assert read.vectors.shape == (SOURCE_ITEMS, VECTOR_DIM)
    np.testing.assert_array_equal(read.vectors, [row[schema.VECTOR] for row in rows])


def test_strings_are_a_sequence():
    strings = item_tables.Strings([pa.array(["a", ""]), pa.array([], pa.string()), pa.array(["c"])])
    assert len(strings) == 3
    assert [strings[0], strings[2], strings[-1]] == ["a", "c", "c"]
    assert strings[1:] == ["", "c"]
    assert list(strings) == ["a", "", "c"]
    assert "c" in strings
    with pytest.raises(IndexError):
        strings[3]
