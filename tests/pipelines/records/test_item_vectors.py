"""Lists of numbers of item files to vectors of item tables."""

import json

import numpy as np
import pyarrow as pa
import pytest

from pipelines.logs import line_blocks
from pipelines.logs.parsed import BadLineError
from pipelines.options import ItemFields
from pipelines.records import (
    item_files,
    item_table,
    item_vectors,
    vector_column,
    vocabulary,
)

FIELDS = ItemFields(vector="emb")
UNIT = line_blocks.Unit("meta.jsonl", 0, "jsonl", False, 0, 1 << 40)


def of_both(rng, width):
    """Vectors of two domains about centres of their own; the last of each has none."""
    made = {}
    for domain, items, centre in (("source", 40, 5.0), ("target", 25, -3.0)):
        vectors = rng.normal(size=(items, width)) * np.arange(width, 0, -1) + centre
        vectors[-1] = 0
        made[domain] = vectors.astype(np.float32)
    return made


def moments(both):
    return [item_vectors.Moments.of(domain, vectors) for domain, vectors in both.items()]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_are_those_of_one_pca_of_both_domains_less_their_centres():
    both = of_both(np.random.default_rng(0), 6)
    basis = item_vectors.fit(moments(both), 3)
    centred = {d: v[:-1].astype(np.float64) - v[:-1].mean(0, np.float64) for d, v in both.items()}
    _, _, directions = np.linalg.svd(np.concatenate(list(centred.values())))
    components = directions[:3].T
    components *= np.sign(components[np.abs(components).argmax(0), range(3)])
    np.testing.assert_allclose(basis.components, components, atol=1e-5)
    for domain, vectors in both.items():
        made = basis.apply(domain, vectors)
        assert made.dtype == np.float16
        np.testing.assert_allclose(made[:-1], unit(centred[domain] @ components), atol=1e-3)
        np.testing.assert_array_equal(made[-1], np.zeros(3))


def test_the_order_of_the_domains_is_nothing():
    both = moments(of_both(np.random.default_rng(1), 5))
    one, other = (item_vectors.fit(order, 2) for order in (both, both[::-1]))
    assert one.to_bytes() == other.to_bytes()


def test_short_vectors_are_centred_and_scaled_only():
    both = of_both(np.random.default_rng(2), 4)
    basis = item_vectors.fit(moments(both), 4)
    vectors = both["source"][:-1]
    expected = unit(vectors - vectors.mean(axis=0))
    np.testing.assert_allclose(basis.apply("source", vectors), expected, atol=1e-3)


def test_equal_vectors_are_at_their_centre():
    equal = np.full((7, 3), 0.1, np.float32)
    basis = item_vectors.fit([item_vectors.Moments.of("source", equal)], 2)
    np.testing.assert_array_equal(basis.apply("source", equal), np.zeros((7, 2)))


def test_what_is_carried_stays_and_a_new_domain_gets_its_centre(tmp_path):
    both = of_both(np.random.default_rng(3), 5)
    source, target = moments(both)
    first = item_vectors.fit([source], 2)
    (tmp_path / "basis").write_bytes(first.to_bytes())
    kept = item_vectors.Basis.read(str(tmp_path / "basis"))
    moved = item_vectors.Moments.of("source", both["source"] + 1)
    second = item_vectors.fit([moved, target], 99, kept)
    np.testing.assert_array_equal(second.components, first.components)
    np.testing.assert_array_equal(second.centres["source"], source.mean)
    np.testing.assert_array_equal(second.centres["target"], target.mean)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0, "2", 3.0], "emb is no list of numbers"),
        (["1", "2", "3"], "emb is no list of numbers"),
        ([1.0, None, 3.0], "emb is no list of numbers"),
        ([True, False, True], "emb is no list of numbers"),
        ([[1.0, 2.0, 3.0]], "emb is no list of numbers"),
        ([[1.0], [2.0, 3.0], []], "emb is no list of numbers"),
        (7, "emb is no list of numbers"),
        ({"a": 1}, "emb is no list of numbers"),
        ("1 2 3", "emb is no list of numbers"),
        ([1.0, float("nan"), 3.0], "emb has a number that is not finite"),
        ([1.0, float("inf"), 3.0], "emb has a number that is not finite"),
        ([1.0, 1e39, 3.0], "emb has a number that is not finite"),
        ([1.0, 2.0], "emb has not 3 numbers"),
        ([1.0, 2.0, 3.0, 4.0], "emb has not 3 numbers"),
    ],
)
def test_rejects(value, reason):
    with pytest.raises(BadLineError, match=f"^{reason}$"):
        vector_column.read(value, "emb", 3)
    line = json.dumps({"item_id": "1", "emb": value}).encode()
    parsed = item_files.parse_lines(line_blocks.Block(0, line), UNIT, FIELDS, 3)
    assert [(r.position, r.reason) for r in parsed.rejects] == [(0, reason)]


@pytest.mark.parametrize("nothing", [None, "", [], "[]", [0, 0.0, 0]])
def test_none_is_no_reject(nothing):
    assert vector_column.read(nothing, "emb", 3) == b""


def test_lists_json_and_rows_of_parquet_are_read_alike():
    expected = np.array([1, 2.5, -3], "<f4").tobytes()
    assert vector_column.read([1, 2.5, -3], "emb", 3) == expected
    assert vector_column.read("[1, 2.5, -3]", "emb", 3) == expected
    table = pa.table({"item_id": ["a", "b"], "emb": [[1, 2.5, -3], None]})
    parsed = item_files.parse_rows(table, 0, FIELDS, 3)
    assert parsed.events["vector"].to_pylist() == [expected, b""]


def test_the_commonest_width():
    column = pa.chunked_array([pa.array([b"", None, b"1234", b"12345678", b"87654321"])])
    assert vector_column.commonest_width(column) == 2
    assert vector_column.commonest_width(column[:2]) == 0


def test_of_repeated_items_the_row_does_not_depend_on_the_order_of_files():
    def raw(vector, columns=item_files.RAW_WITH_VECTORS):
        row = dict.fromkeys(item_files.RAW.names, "") | {"item": "a", "vector": vector}
        return item_files.from_rows([row], columns)

    numbers = np.array([1, 2], "<f4").tobytes()
    parts = [raw(b""), raw(numbers), raw(None, item_files.RAW)]
    for order in (parts, parts[::-1]):
        known = vocabulary.Vocabulary(pa.array(["b", "a"]), np.zeros(2, int), np.zeros(2, int))
        described = item_table.Described.of(order, known)
        assert described.there.tolist() == [False, True]
        matrix = vector_column.matrix(described.column("vector"), 2)
        np.testing.assert_array_equal(matrix, [[0, 0], [1, 2]])
