"""Every line is read once, by one unit, wherever blocks are cut."""

import collections
import gzip
import tracemalloc
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.logs import event_parser, line_blocks
from pipelines.logs.log_format import LogFormat
from pipelines.options import ItemFields
from pipelines.records import item_files
from sitn_tf.errors import InputError


def all_lines(path, block_bytes, longest=1 << 20):
    """(position, line, kept?) of everything that the units of a file give."""
    found = []
    for unit in line_blocks.plan("log", str(path), "jsonl", block_bytes):
        for block in line_blocks.read_blocks(unit, block_bytes, longest):
            position = block.position
            for line in block.data.splitlines(keepends=True):
                found.append((position, line.rstrip(b"\n"), True))
                position += len(line)
            found += [(position + i, b"", True) for i in range(block.blank)]
            found += [(long.position, long.head, False) for long in block.long_lines]
    return found


def expected_lines(content):
    position, found = 0, []
    for line in content.splitlines(keepends=True):
        found.append((position, line.rstrip(b"\n")))
        position += len(line)
    return found


contents = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")),
                    min_size=1, max_size=30).map(b"\n".join).filter(len)  # fmt: skip


@settings(max_examples=200)
@given(contents, st.integers(1, 40), st.sampled_from(["", ".gz"]), st.booleans())
def test_each_line_once(tmp_path_factory, content, block_bytes, suffix, newline):
    content = content.translate(None, b"\x0b\x0c\x1c\x1d\x1e\x85") + (b"\n" if newline else b"")
    if not content:
        return
    path = tmp_path_factory.mktemp("r") / f"log.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    found = [(position, line) for position, line, _ in all_lines(path, block_bytes)]
    assert sorted(found) == expected_lines(content)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 30))
def test_long_lines_are_told_once_and_not_kept(tmp_path_factory, lengths, block_bytes):
    content = b"".join(b"x" * n + b"\n" for n in lengths)
    path = tmp_path_factory.mktemp("r") / "log.jsonl"
    path.write_bytes(content)
    found = sorted(all_lines(path, block_bytes, longest=20))
    assert [position for position, _, _ in found] == [p for p, _ in expected_lines(content)]
    for (_, line, kept), length in zip(found, lengths, strict=True):
        assert len(line) == length or (not kept and length > 20)


def test_a_bomb_of_one_line_takes_little_memory(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    pressed = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        for _ in range(100):
            file.write(pressed.compress(b"{" * (1 << 20)))
        file.write(pressed.compress(b'\n{"a": 1}\n') + pressed.flush())
    tracemalloc.start()
    found = all_lines(path, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(position, kept) for position, _, kept in found] == [(0, False), (100 << 20 | 1, True)]
    assert peak < 12 << 20  # of 100 MB


@pytest.mark.parametrize("line", [b"\n", b" \r\n"])
def test_a_bomb_of_blank_lines_takes_little_memory(tmp_path, line):
    lines = 1 << 22
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(line * lines))
    [unit] = line_blocks.plan("log", str(path), "jsonl", 16 << 20)
    counts = collections.Counter()
    tracemalloc.start()
    for _, parsed in event_parser.parse_unit(unit, LogFormat(), 16 << 20, "source"):
        counts.update(parsed.filtered, lines=parsed.lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == {"lines": lines, "blank_line": lines}
    # Blocks as read, by number alone: 100 million lines in pieces of 2^18 took 64 s.
    blocks = list(line_blocks.read_blocks(unit, 16 << 20, 1 << 20))
    assert {block.data for block in blocks} == {b""}
    assert len(blocks) <= 2
    assert peak < 80 << 20  # a line's two ends in all blocks would alone take 64 MB


def test_blocks_of_many_lines_are_cut_where_lines_end(tmp_path, monkeypatch):
    monkeypatch.setattr(line_blocks, "_MOST_LINES", 3)
    content = b"a\n" * 7 + b"x" * 40 + b"\n" + b"\n" * 9 + b"b\nc"
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    assert [(p, line) for p, line, _ in all_lines(path, 1000)] == expected_lines(content)
    [unit] = line_blocks.plan("log", str(path), "jsonl", 1000)
    blocks = list(line_blocks.read_blocks(unit, 1000, 100))
    assert max(block.data.count(b"\n") for block in blocks) <= 3


def test_a_row_of_parquet_is_counted_in_the_file(tmp_path):
    rows = {"user_id": ["a", "b", "c", "", "e", "", "g"], "item_id": list("abcdefg"),
            "timestamp": [5] * 7}  # fmt: skip
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(rows), path, row_group_size=2)
    units = line_blocks.plan("log", str(path), "auto", 1000)
    assert len(units) == 4
    parsed = [p for u in units for _, p in event_parser.parse_unit(u, LogFormat(), 0, "source")]
    assert [r.position for p in parsed for r in p.rejects] == [3, 5]
    described = [
        p for u in units for _, p in item_files.parse_items(u, ItemFields(item="user_id"), 0)
    ]
    assert [r.position for p in described for r in p.rejects] == [3, 5]


def test_names_tell_formats():
    assert line_blocks.kind_of("a/b.JSON.gz", "auto") == ("jsonl", True)
    assert line_blocks.kind_of("b.csv", "auto") == ("csv", False)
    assert line_blocks.kind_of("b.log", "jsonl") == ("jsonl", False)
    with pytest.raises(InputError, match=r"the name of b\.log does not tell its format"):
        line_blocks.kind_of("b.log", "auto")
