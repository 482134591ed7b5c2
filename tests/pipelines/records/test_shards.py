"""Spilling and loading: nothing is lost, duplicates merge, hot users are cut."""

import collections

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
    """What `load` should give: a row is a duplicate if its event is kept, else one too many."""
    merged = {}
    for row in rows:
        key = (row["user"], row["time"], row["request"], row["item"])
        clicked, score = merged.get(key, (False, None))
        scores = [s for s in (score, row["score"]) if s is not None]
        merged[key] = (clicked or row["clicked"], max(scores, default=None))
    kept = []
    for user in sorted({key[0] for key in merged}):
        kept += sorted(key for key in merged if key[0] == user)[-most:]
    of_kept = sum((r["user"], r["time"], r["request"], r["item"]) in kept for r in rows)
    duplicates, over = of_kept - len(kept), len(rows) - of_kept
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
def test_loaded_at_once_against_a_loop(rows, most):
    table, filtered = shards.load([pa.Table.from_pylist(rows, schema=SHOWN)], SHOWN, most)
    expected, counts = loop(rows, most)
    same(
        table.select(["user", "time", "request", "item", "clicked", "score"]).to_pylist(), expected
    )
    assert filtered == {rule: n for rule, n in counts.items() if n}


def spilled(rows, count, piece, folder):
    """What a shard gets through files: its parts, the last first."""
    by_shard = {}
    for begin in range(0, len(rows), piece):
        table = pa.Table.from_pylist(rows[begin : begin + piece], schema=SHOWN)
        made = shards.spill(table, count, f"{folder}/{begin}", "source", (0, begin))
        for shard, part in made:
            by_shard.setdefault(shard, []).append(part)
    return [(table for _, table in shards.in_files(parts[::-1])) for parts in by_shard.values()]


def sent(rows, count, piece, _):
    """What a shard gets through messages, the last first."""
    by_shard = {}
    for begin in range(0, len(rows), piece):
        table = pa.Table.from_pylist(rows[begin : begin + piece], schema=SHOWN)
        for shard, batch in shards.by_shard(table, count):
            by_shard.setdefault(shard, []).extend(shards.messages(batch))
    return [[shards.of_message(m, SHOWN) for m in those[::-1]] for those in by_shard.values()]


@pytest.mark.parametrize("carry", [spilled, sent])
@settings(max_examples=40)
@given(rows_of, st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))
def test_carried_and_loaded_in_pieces(tmp_path_factory, carry, rows, count, most, piece):
    """Whatever the pieces and their order, and wherever it is compacted: events and counts."""
    folder = tmp_path_factory.mktemp("spill")
    found, dropped = [], collections.Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "COMPACT_ROWS", 5)  # compact again and again while loading
        patch.setattr(shards, "MESSAGE_BYTES", 900)  # some rows' worth
        for tables in carry(rows, count, piece, folder):
            table, filtered = shards.load(tables, SHOWN, most)
            found += table.to_pylist()
            dropped.update(filtered)
    expected, counts = loop(rows, most)
    found.sort(key=lambda r: (r["user"], r["time"], r["request"], r["item"]))
    names = ["user", "time", "request", "item", "clicked", "score"]
    same([{name: row[name] for name in names} for row in found], expected)
    assert dropped == collections.Counter(counts)


def test_a_hot_user_is_held_no_more_than_it_must(monkeypatch):
    """10,000 events of a user who keeps 20, compacted at 100: 120 rows and a table at most."""
    monkeypatch.setattr(shards, "COMPACT_ROWS", 100)
    loading, most = shards.Loading(SHOWN, 20), 0
    for begin in range(0, 10_000, 10):
        rows = [{"user": "u", "item": "i", "time": t, "clicked": True, "request": "q"}
                for t in range(begin, begin + 10)]  # fmt: skip
        loading.add(pa.Table.from_pylist(rows, schema=SHOWN))
        most = max(most, sum(map(len, loading._held)))
    table, filtered = loading.finish()
    assert most <= 100 + 20 + 10
    assert table["time"].to_pylist() == [*range(9980, 10_000)]
    assert filtered == {"user_has_too_many": 9980}


def test_messages_are_bounded_and_come_back(monkeypatch):
    rows = [{"user": "u" * (i % 50), "item": "i", "time": i, "clicked": i % 2 == 0} for i in
            range(200)]  # fmt: skip
    rows.insert(7, {"user": "long" * 1000, "item": "j", "time": 3, "clicked": True})
    table = pa.Table.from_pylist(rows, schema=SHOWN)
    monkeypatch.setattr(shards, "MESSAGE_BYTES", 2000)
    made = list(shards.messages(table.to_batches()[0]))
    read = [shards.of_message(message, SHOWN) for message in made]
    assert all(len(m) <= 2000 or len(t) == 1 for m, t in zip(made, read, strict=True))
    assert sum(len(m) > 2000 for m in made) == 1
    assert pa.concat_tables(read).equals(table)


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
