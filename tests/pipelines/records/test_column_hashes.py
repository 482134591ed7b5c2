"""Hashes are the same everywhere and for ever: golden values pin them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import column_hashes

WORD = (1 << 64) - 1


def mix(x):
    """splitmix64's finish, with Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORD
    return x ^ (x >> 31)


def string_hash(text):
    data = text.encode()
    total = sum((byte + 1) * pow(0x100000001B3, i, 1 << 64) for i, byte in enumerate(data))
    return mix((total + len(data) * 0x9E3779B97F4A7C15) & WORD)


@given(st.lists(st.text(max_size=20)), st.integers(0, 3))
def test_strings_hash_as_python_would(texts, skip):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    found = column_hashes.hash_strings(
        pa.array(["padding"] * skip + texts, pa.string()).slice(skip)
    )
    assert found.tolist() == [string_hash(text) for text in texts]


def test_golden():
    # splitmix64 of state 0 gives e220a8397b1dcdaf first: Steele, Lea, Flood 2014
    assert column_hashes.mix(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    assert column_hashes.hash_strings(pa.array(["user-1"])).tolist() == [string_hash("user-1")]


def test_one_length_is_as_many_lengths():
    same = column_hashes.hash_strings(pa.array(["ab", "cd"]))
    assert same.tolist() == column_hashes.hash_strings(pa.array(["ab", "cd", "efg"]))[:2].tolist()


def test_order_of_columns_matters():
    one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    assert column_hashes.combine(one, two) != column_hashes.combine(two, one)
    assert column_hashes.combine(one, -1) == column_hashes.combine(one, np.array([-1]))


def test_spreads_evenly():
    users = pa.array([f"user{i}" for i in range(20_000)])
    tenth = column_hashes.hash_strings(users) % np.uint64(10)
    share = np.bincount(tenth.astype(np.int64), minlength=10) / 20_000
    assert share == pytest.approx(np.full(10, 0.1), abs=0.01)
    uniform = column_hashes.unit_interval(column_hashes.hash_strings(users))
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert 0 <= uniform.min() < uniform.max() < 1
