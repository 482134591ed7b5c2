"""RAW rows of item files and a vocabulary to the item table."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import item_files, item_table, vocabulary
from sitn_tf import schema

CATEGORIES = ("main_category", "second_category", "leaf_category")


def test_words():
    flat, offsets = item_table.words(pa.array(["It's 2 BIG-dogs!", "", "...", "Ünï 漢字"]), 3)
    assert flat.to_pylist() == ["it", "s", "2", "ünï", "漢字"]
    assert offsets.tolist() == [0, 3, 3, 3, 5]


def table_of():
    known = vocabulary.Vocabulary(pa.array(["a", "b"]), np.array([5, 1]), np.array([6, 1]))
    described = item_table.Described.of(
        [
            item_files.from_rows(
                [
                    {"item": "b", "title": "red dog", "brand": "X"} | dict.fromkeys(CATEGORIES, ""),
                    {"item": "z", "title": "blue", "brand": ""} | dict.fromkeys(CATEGORIES, ""),
                ]
            )
        ],
        known,
    )  # fmt: skip
    assert described.there.tolist() == [False, True]
    assert described.read == 2
    words = {"title_words": pa.array(["dog"]), "brand": pa.array(["W", "X"])}
    words |= {name: pa.array([], pa.string()) for name in CATEGORIES}
    return pa.concat_tables(item_table.table_parts(known, described, words, 32))


@pytest.mark.parametrize("rows", [1, 1 << 18])
def test_rows_are_in_order_of_ids(monkeypatch, rows):
    monkeypatch.setattr(item_table, "PART_ROWS", rows)
    table = table_of()
    assert tuple(table.column_names) == schema.ITEM_TABLE_COLUMNS
    assert table.to_pydict() == {
        "item": ["", "", "a", "b"],
        "title": ["", "", "", "red dog"],
        "count": [0, 0, 5, 1],
        "impressions": [0, 0, 6, 1],
        "title_words": [[], [], [], [2]],  # "red" is too rare to have an id
        "brand": [0, 1, 1, 3],
        "main_category": [0, 1, 1, 1],
        "second_category": [0, 1, 1, 1],
        "leaf_category": [0, 1, 1, 1],
    }
    assert table.schema.field("title_words").type == pa.list_(pa.int32())
    assert table.schema.field("brand").type == pa.int32()


def test_vocabularies_are_by_count_then_text_and_keep_what_is_known():
    tokens = pa.array(["b", "a", "b", "c", "a", "d"])
    counts = item_table.count_tokens(tokens)
    assert item_table.vocabulary_of(counts, 1, None).to_pylist() == ["a", "b", "c", "d"]
    assert item_table.vocabulary_of(counts, 2, None).to_pylist() == ["a", "b"]
    assert item_table.vocabulary_of(counts, 1, 3).to_pylist() == ["a", "b", "c"]
    known = pa.array(["x", "c"])
    assert item_table.vocabulary_of(counts, 1, None, known).to_pylist() == ["x", "c", "a", "b", "d"]


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.sampled_from(["", "x", "y z"]), st.sampled_from(["", "B"])
    ),
    max_size=6,
)


@given(st.lists(ROWS, max_size=3), st.permutations("abc"))
def test_of_repeated_items_the_first_by_text_counts(written, items):
    """In a loop; "d" is in no log."""
    none = dict.fromkeys(item_files.RAW.names, "")
    tables = [
        item_files.from_rows([none | {"item": i, "title": t, "brand": b} for i, t, b in rows])
        for rows in written
    ]
    known = vocabulary.Vocabulary(pa.array(items), np.zeros(3, int), np.zeros(3, int))
    described = item_table.Described.of(tables, known)
    flat = [row for rows in written for row in rows]
    of_item = [sorted((t, b) for i, t, b in flat if i == item) for item in items]
    assert described.there.tolist() == [bool(rows) for rows in of_item]
    assert described.read == len(flat)
    expected = [rows[0] if rows else ("", "") for rows in of_item]
    found = pa.concat_tables(described.parts()).to_pylist()
    assert [(row["title"], row["brand"]) for row in found] == expected
    assert [row["item"] for row in found] == list(items)
