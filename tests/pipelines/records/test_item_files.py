"""Item files of every shape to RAW rows."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.logs import event_parser, line_blocks
from pipelines.logs.log_format import LogFormat
from pipelines.options import ItemFields
from pipelines.records import item_files
from sitn_tf.errors import InputError

UNIT = line_blocks.Unit("meta.jsonl", 0, "jsonl", False, 0, 1 << 40)
CATEGORIES = ("main_category", "second_category", "leaf_category")
AMAZON = ItemFields(item="asin", categories="categories")


def parse(text, fields=AMAZON):
    data = text if isinstance(text, bytes) else text.encode()
    parsed = item_files.parse_lines(line_blocks.Block(0, data), UNIT, fields)
    return parsed.events.to_pylist(), [(r.position, r.reason) for r in parsed.rejects]


def test_a_python_literal_of_2014():
    line = "{'asin': '0001', 'title': 'Don\\'t', 'brand': 'B', 'categories': [['Books', 'Art']]}"
    [row], rejects = parse(line)
    assert row == {"item": "0001", "title": "Don't", "brand": "B", "main_category": "Books",
                   "second_category": "Art", "leaf_category": ""}  # fmt: skip
    assert rejects == []


def test_json_of_2018():
    path = ["Books", "Art", "Painting", "Oil"]
    line = json.dumps({"asin": "1", "category": path, "main_cat": "Book"})
    fields = ItemFields(item="asin", main_category="main_cat", categories="category")
    [row], _ = parse(line, fields)
    assert [row[n] for n in CATEGORIES] == ["Book", "Art", "Oil"]


def test_a_plain_leaf_goes_before_that_of_the_path():
    [row], _ = parse(json.dumps({"asin": "1", "categories": ["A", "B", "C"], "leaf_category": "L"}))
    assert [row[n] for n in CATEGORIES] == ["A", "B", "L"]


META_2014 = r"""
{'asin': '0001048791', 'salesRank': {'Books': 6334800}, 'imUrl': 'http://x.com/x.jpg', 'categories': [['Books']], 'title': 'The Crucible: Performed by Jerome Dempsey &amp; Cast'}
{'asin': '0000143561', 'categories': [['Movies & TV', 'Movies'], ['Movies & TV', 'DVD', 'Italian']], 'description': '3Pack "Italian" Classics', 'title': "Everyday Italian (with Giada), Volume 1: Giada\'s", 'price': 12.99, 'related': {'also_viewed': ['B0036FO6SI']}, 'brand': ''}
{'asin': '0000037214', 'title': 'Purple Sequin Tutu \xe9t\xe9', 'price': 6.99, 'brand': 'Big Dreams', 'categories': [['Clothing, Shoes & Jewelry', 'Girls'], ['Clothing, Shoes & Jewelry', 'Novelty']]}
{'asin': '0001042335', 'categories': [[]]}
"""  # noqa: E501

META_2018 = r"""
{"category": ["Clothing, Shoes &amp; Jewelry", "Women", "Clothing"], "tech1": "", "description": ["First.", "<p>Second</p>"], "fit": "class=\"a-normal\"", "title": "Slime Time Fall Fest &quot;Live&quot; [With <b>CDROM</b> and Mirror]", "also_buy": [], "brand": "Group Publishing (CO)", "feature": ["Product Dimensions:"], "rank": "13,052,976inClothing (", "details": {}, "main_cat": "AMAZON FASHION", "price": "$8.99", "asin": "0764443682"}
{"category": [], "description": [], "title": "", "brand": "", "main_cat": "<img src=\"https://x/y.png\" alt=\"Digital Music\">", "asin": "B00000JBAT"}
{"category": ["Books"], "asin": "1"}
"""  # noqa: E501


def test_lines_of_the_meta_files_of_2014():
    rows, rejects = parse(META_2014)
    assert rejects == []
    assert [tuple(row.values()) for row in rows] == [
        ("0001048791", "The Crucible: Performed by Jerome Dempsey & Cast", "", "Books", "", ""),
        ("0000143561", "Everyday Italian (with Giada), Volume 1: Giada's", "",
         "Movies & TV", "Movies", ""),
        ("0000037214", "Purple Sequin Tutu été", "Big Dreams", "Clothing, Shoes & Jewelry",
         "Girls", ""),
        ("0001042335", "", "", "", "", ""),
    ]  # fmt: skip


def test_lines_of_the_meta_files_of_2018():
    rows, rejects = parse(META_2018, ItemFields(item="asin", categories="category"))
    assert rejects == []
    assert [tuple(row.values()) for row in rows] == [
        ("0764443682", 'Slime Time Fall Fest "Live" [With CDROM and Mirror]',
         "Group Publishing (CO)", "Clothing, Shoes & Jewelry", "Women",
         "Clothing"),
        ("B00000JBAT", "", "", "", "", ""),
        ("1", "", "", "Books", "", ""),
    ]  # fmt: skip


def test_markup_is_left_out_and_comparisons_are_not():
    [row], _ = parse(json.dumps({"asin": "a&amp;b", "title": "1 < 2 > 0 &lt;br&gt; <br/>x</p>"}))
    assert (row["item"], row["title"]) == ("a&amp;b", "1 < 2 > 0 <br> x")


def test_code_is_not_run():
    rows, rejects = parse("__import__('os').abort()\n{'asin': 'a' * 9**9}\n" + "(" * 5000)
    assert rows == []
    assert [reason for _, reason in rejects] == ["neither json nor a python literal"] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"title": "x"}', "missing field asin"),
        (b'{"asin": ""}', "empty asin"),
        (b'{"asin": 1.5}', "wrong type in asin"),
        (b'{"asin": "\xc2\x85"}', "control character in asin"),
        (b'{"asin": "' + b"x" * 513 + b'"}', "asin too long"),
        (b"{'asin': 0x" + b"f" * 5000 + b"}", "asin too long"),
        (b'["asin"]', "not a json object"),
        (b'{"asin": "\xff"}', "invalid utf-8"),
    ],
)
def test_rejects(line, reason):
    assert parse(line) == ([], [(0, reason)])


@given(st.one_of(st.text(max_size=3), st.sampled_from([*map(chr, range(256)), "a  b", "x" * 513])))
def test_an_id_is_what_logs_make_of_it(item):
    log = {"user_id": "u", "item_id": item, "timestamp": 5}
    unit = dataclasses.replace(UNIT, kind="jsonl")
    block = line_blocks.Block(0, json.dumps(log).encode())
    told = event_parser.parse_block(block, unit, LogFormat())
    described = item_files.parse_lines(block, unit, ItemFields())
    assert described.events["item"].to_pylist() == told.events["item"].to_pylist()
    assert [r.reason for r in described.rejects] == [r.reason for r in told.rejects]


def test_every_line_is_in_one_place():
    unit = dataclasses.replace(UNIT, kind="csv", columns=("asin", "title"))
    lines = [b"1,One", b"", b"2", b"3,a,b", b"4," + b"x" * 200_000, b'5,"Fi\r', b"  ", b"6,Six\r"]
    long_line = line_blocks.LongLine(999, 1 << 30, b"7,")
    block = line_blocks.Block(0, b"\n".join(lines), (long_line,))
    parsed = item_files.parse_lines(block, unit, AMAZON)
    assert parsed.events["item"].to_pylist() == ["1", "6"]
    assert parsed.filtered == {"blank_line": 2}
    assert [(r.reason, r.raw, r.whole) for r in parsed.rejects] == [
        ("wrong number of columns", lines[2], True),
        ("wrong number of columns", lines[3], True),
        ("malformed csv", lines[4], True),
        ("malformed csv", lines[5], True),
        ("line too long", b"7,", False),
    ]
    assert parsed.lines == len(lines) + 1


def test_rows_of_parquet():
    table = pa.table({"asin": ["1", None, "3"], "title": ["One", "Two", None]})
    parsed = item_files.parse_rows(table, 10, AMAZON)
    assert parsed.events["item"].to_pylist() == ["1", "3"]
    [reject] = parsed.rejects
    assert (reject.position, reject.reason) == (11, "missing field asin")
    assert reject.raw == b'{"asin": null, "title": "Two"}'
    assert parsed.lines == 3


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "items.parquet"
    once = [pa.array(["1"]), pa.array(["Tea"])]
    pq.write_table(pa.table([*once, *once], names=["asin", "title", "title", "other"]), path)
    [unit] = line_blocks.plan("items.source", str(path), "auto", 1 << 20)
    with pytest.raises(InputError, match=r"items\.parquet has 2 columns title: which counts"):
        list(item_files.parse_items(unit, AMAZON, 1 << 20))


def test_titles_are_one_line():
    [row], _ = parse(json.dumps({"asin": "1", "title": " a\nb\u2028c\x00 \ud800", "brand": ["x"]}))
    assert row["title"] == "a b c"
    assert row["brand"] == ""
