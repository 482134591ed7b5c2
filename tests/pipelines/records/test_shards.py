"""Spilling and loading: nothing is lost, duplicates merge, hot users are cut."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.logs.log_format import LogFormat
from pipelines.records import shards

SHOWN = LogFormat(label="clicked", request="request", score="score").schema

rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["a", "b", "cc", "é"]),
            "item": st.sampled_from("xyz"),
            "time": st.integers(0, 5),
            "clicked": st.booleans(),
            "request": st.sampled_from(["q", "r"]),
            "score": st.sampled_from([None, 0.5, 1.0]),
        }
    ),
    max_size=60,
)


def loop(rows, most):
    """What `compact` should give."""
    merged = {}
    for row in rows:
        key = (row["user"], row["time"], row["request"], row["item"])
        clicked, score = merged.get(key, (False, None))
        scores = [s for s in (score, row["score"]) if s is not None]
        merged[key] = (clicked or row["clicked"], max(scores, default=None))
    kept = []
    for user in sorted({key[0] for key in merged}):
        kept += sorted(key for key in merged if key[0] == user)[-most:]
    duplicates, over = len(rows) - len(merged), len(merged) - len(kept)
    names = ("user", "time", "request", "item")
    table = [
        {**dict(zip(names, key, strict=True)), "clicked": merged[key][0], "score": merged[key][1]}
        for key in kept
    ]
    return table, {"duplicate": duplicates, "user_has_too_many": over}


def same(found, expected):
    as_none = [{**r, "score": None if r["score"] != r["score"] else r["score"]} for r in found]
    assert as_none == expected


@settings(max_examples=200)
@given(rows_of, st.integers(1, 8))
def test_compact_against_a_loop(rows, most):
    table, filtered = shards.compact(pa.Table.from_pylist(rows, schema=SHOWN), most)
    expected, counts = loop(rows, most)
    same(
        table.select(["user", "time", "request", "item", "clicked", "score"]).to_pylist(), expected
    )
    assert filtered == {rule: n for rule, n in counts.items() if n}


@settings(max_examples=60)
@given(rows_of, st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))
def test_spilled_and_loaded_in_pieces(tmp_path_factory, rows, count, most, piece):
    folder = str(tmp_path_factory.mktemp("spill"))
    by_shard = {}
    for begin in range(0, len(rows), piece):
        table = pa.Table.from_pylist(rows[begin : begin + piece], schema=SHOWN)
        spilled = shards.spill(table, count, f"{folder}/{begin}", "source", (0, 0, begin))
        for shard, part in spilled:
            by_shard.setdefault(shard, []).append(part)
    found, dropped = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "COMPACT_ROWS", 5)  # compact again and again while loading
        for parts in by_shard.values():
            table, filtered = shards.load(parts[::-1], SHOWN, most)
            found += table.to_pylist()
            dropped += sum(filtered.values())
    expected, counts = loop(rows, most)
    found.sort(key=lambda r: (r["user"], r["time"], r["request"], r["item"]))
    names = ["user", "time", "request", "item", "clicked", "score"]
    same([{name: row[name] for name in names} for row in found], expected)
    assert dropped == sum(counts.values())


def test_a_user_is_in_one_shard():
    users = pa.array(["a", "b", "a", "c", "b"])
    shard = shards.shard_of_users(users, 7)
    assert shard[0] == shard[2]
    assert shard[1] == shard[4]
    assert shard.max() < 7


@settings(max_examples=100)
@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 3), max_size=30))
def test_sort_order_of_wide_and_narrow_keys(rows):
    wide = np.array(rows, np.int64).reshape(-1, 3)
    for keys in (wide.T, (wide % 5).T):
        order = shards.sort_order(*keys)
        listed = [tuple(row) for row in np.array(keys).T.tolist()]
        assert order.tolist() == sorted(range(len(listed)), key=lambda i: (listed[i], i))
