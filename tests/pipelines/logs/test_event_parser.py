"""Parsing a block at once agrees with parsing each line alone, whatever the lines hold."""

import dataclasses
import json
import time
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.logs import event_parser, line_blocks, text_lines
from pipelines.logs.log_format import TIME_UNITS, LogFormat
from tests.fuzzing import log_lines
from tests.fuzzing.log_lines import CSV, JSON, PLAIN, RATED, SHOWN


def parse(lines, log=PLAIN, unit=JSON):
    data = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    return event_parser.parse_block(line_blocks.Block(0, data), unit, log)


def reasons(parsed):
    return [reject.reason for reject in sorted(parsed.rejects, key=lambda r: r.position)]


def line(**fields):
    return json.dumps({"user_id": "u", "item_id": "i", "timestamp": 5} | fields)


def test_reads_events():
    parsed = parse([line(), line(user_id="w", timestamp=7, other=[1, {"a": None}])])
    assert parsed.events.to_pylist() == [
        {"user": "u", "item": "i", "time": 5, "clicked": True},
        {"user": "w", "item": "i", "time": 7, "clicked": True},
    ]
    assert (parsed.lines, parsed.rejects, parsed.filtered) == (2, [], {})


def test_ids_may_be_numbers():
    parsed = parse(['{"user_id": 12, "item_id": 900000000000, "timestamp": 5}'])
    assert parsed.events.to_pylist() == [
        {"user": "12", "item": "900000000000", "time": 5, "clicked": True}
    ]


def test_impressions_have_labels_requests_and_scores():
    parsed = parse(
        [
            line(clicked=1, request_id="r", score=0.5),
            line(clicked=0, request_id="r", score=None),
        ],
        SHOWN,
    )
    assert parsed.events.select(["clicked", "request", "score"]).to_pylist() == [
        {"clicked": True, "request": "r", "score": 0.5},
        {"clicked": False, "request": "r", "score": None},
    ]


def test_a_minimum_of_zero_filters_negative_ratings():
    log = dataclasses.replace(RATED, min_rating=0.0)
    parsed = parse([line(stars=-1), line(stars=0)], log)
    assert len(parsed.events) == 1
    assert parsed.filtered == {"rating_below_minimum": 1}


def test_low_ratings_are_filtered():
    parsed = parse([line(stars=5), line(stars=3.5), line(stars=4.0), line(stars="x")], RATED)
    assert len(parsed.events) == 2
    assert parsed.filtered == {"rating_below_minimum": 1}
    assert reasons(parsed) == ["wrong type in stars"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "malformed json"),
        ('{"user_id": "u", "item_id": "i", "timestamp": NaN}', "timestamp is not a finite number"),
        ('{"user_id": "u", "item_id": "i", "timestamp": 5, "x": Inf}', "malformed json"),
        ('{"user_id": NaN, "item_id": "i", "timestamp": 5}', "wrong type in user_id"),
        ("[1]", "not a json object"),
        (line(user_id=None), "missing field user_id"),
        ('{"user_id": "u", "timestamp": 5}', "missing field item_id"),
        (line(user_id=""), "empty user_id"),
        (line(item_id=["i"]), "wrong type in item_id"),
        (line(user_id=1.5), "wrong type in user_id"),
        (line(user_id=True), "wrong type in user_id"),
        (line(user_id="a\nb"), "control character in user_id"),
        (line(item_id="a\x00"), "control character in item_id"),
        (line(item_id="a\u2028"), "control character in item_id"),
        (line(user_id="u" * 513), "user_id too long"),
        (line(timestamp="soon"), "wrong type in timestamp"),
        (line(timestamp=-1), "negative timestamp"),
        (line(timestamp=-0.5), "negative timestamp"),
        (line(timestamp=10**12), "timestamp in the far future"),
        (line(timestamp=10**400), "timestamp in the far future"),
        (line(timestamp=1e300), "timestamp in the far future"),
        ('{"user_id": "u", "item_id": "i", "timestamp": 1e999}',
         "timestamp is not a finite number"),
        (line(timestamp=True), "wrong type in timestamp"),
        ('{"user_id": "u", "user_id": "v", "item_id": "i", "timestamp": 5}',
         "repeated field user_id"),
        ('{"user_id": "\\ud800", "item_id": "i", "timestamp": 5}', "invalid utf-8 in user_id"),
        (line() + line(), "malformed json"),
    ],
)  # fmt: skip
def test_a_bad_line_is_rejected_with_its_reason_and_text(bad, reason):
    parsed = parse([line(), bad, line(user_id="w")])
    assert reasons(parsed) == [reason]
    assert parsed.events["user"].to_pylist() == ["u", "w"]
    [reject] = parsed.rejects
    assert reject.position == len(line()) + 1
    assert reject.raw == bad.encode()


def test_invalid_utf8_is_rejected_and_kept_as_it_was():
    bad = b'{"user_id": "\xff", "item_id": "i", "timestamp": 5}'
    parsed = parse(line().encode() + b"\n" + bad)
    assert reasons(parsed) == ["invalid utf-8"]
    assert parsed.rejects[0].raw == bad


def test_one_object_over_two_lines_is_not_an_event():
    # as many rows as lines: only the braces tell that they don't match
    half = '{"user_id": "w", "item_id": "i",'
    parsed = parse([line(), line(user_id="v") + half, '"timestamp": 6}'])
    assert parsed.events["user"].to_pylist() == ["u"]
    assert reasons(parsed) == ["malformed json", "malformed json"]


@pytest.mark.parametrize("text", ["0x1F", "nan", "1_0", " 7", "7 ", "١", "", "1e", "--1", "inf"])
def test_text_that_only_some_parsers_take_for_a_number(text):
    # the only line, so that the block is parsed at once
    assert reasons(parse([line(timestamp=text)])) == ["wrong type in timestamp"]


def test_long_lines_are_rejected():
    log = LogFormat(max_line_bytes=100)
    parsed = parse([line(), line(note="x" * 200)], log)
    assert reasons(parsed) == ["line too long"]
    assert len(parsed.events) == 1


def test_blank_lines_are_counted():
    parsed = parse(["", line(), "  "])
    assert (parsed.lines, len(parsed.events), parsed.filtered) == (3, 1, {"blank_line": 2})


def test_times_in_milliseconds():
    log = LogFormat(time_unit="ms")
    assert parse([line(timestamp=5999)], log).events["time"].to_pylist() == [5]
    assert parse([line(timestamp="5999.5")], log).events["time"].to_pylist() == [5]


def test_csv():
    parsed = parse(["u,i,5,n", 'v,i,6.5,"a, b"', "w,i", "x,,7,n", '"u2","i2",8,""'], unit=CSV)
    assert parsed.events.select(["user", "item", "time"]).to_pylist() == [
        {"user": "u", "item": "i", "time": 5},
        {"user": "v", "item": "i", "time": 6},
        {"user": "u2", "item": "i2", "time": 8},
    ]
    assert reasons(parsed) == ["wrong number of columns", "empty item_id"]


def test_rows_of_parquet():
    table = pa.table(
        {
            "user_id": pa.array([1, None, 3]),
            "item_id": pa.array(["a", "b", ""]).dictionary_encode(),
            "timestamp": pa.array([5, 6, 7], pa.timestamp("s")),
        }
    )
    parsed = event_parser.parse_rows(table, 100, PLAIN)
    assert parsed.events.to_pylist() == [{"user": "1", "item": "a", "time": 5, "clicked": True}]
    assert [(r.position, r.reason) for r in parsed.rejects] == [
        (101, "missing field user_id"),
        (102, "empty item_id"),
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize(
    ("kind", "one", "second"),
    [
        (pa.timestamp("s"), 86_400, 86_400),
        (pa.timestamp("ns"), 86_400_999_999_999, 86_400),
        (pa.timestamp("us", "Asia/Tokyo"), 86_400_000_001, 86_400),
        (pa.date32(), 1, 86_400),
        (pa.date64(), 86_400_000, 86_400),
    ],
)
def test_times_of_parquet_are_utc_at_once_row_by_row_and_in_rejects(
    monkeypatch, unit, kind, one, second
):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    log = dataclasses.replace(SHOWN, request=None, score=None, time_unit=unit)
    table = pa.table({
        "user_id": ["u", "", "w", "x"], "item_id": ["a", "b", "c", "d"],
        "timestamp": pa.array([one, one, None, -one], kind), "clicked": [1, 0, 1, 1],
    })  # fmt: skip
    words = table.set_column(3, "clicked", pa.array(["true", "false", "true", "true"]))
    for rows in (table, words):  # the second goes row by row
        parsed = event_parser.parse_rows(rows, 0, log)
        assert parsed.events["time"].to_pylist() == [second]
        assert reasons(parsed) == ["empty user_id", "missing field timestamp", "negative timestamp"]
        assert json.loads(parsed.rejects[0].raw)["timestamp"] == second * TIME_UNITS[unit]


def test_rows_of_parquet_with_not_a_number():
    table = pa.table(
        {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [float("nan"), 6.0]}
    )
    parsed = event_parser.parse_rows(table, 0, PLAIN)
    assert parsed.events["user"].to_pylist() == ["v"]
    assert reasons(parsed) == ["timestamp is not a finite number"]


@pytest.mark.parametrize("name", log_lines.BASES)
def test_fuzz_at_once_is_line_by_line(name):
    assert log_lines.fuzz(name, 2_000, seed=0) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", log_lines.BASES)
def test_fuzz_at_once_is_line_by_line_at_length(name):
    assert log_lines.fuzz(name, 100_000, seed=1) > 5_000


pieces = st.lists(st.sampled_from([b"\n", b" ", b"\r", b"\t", b"\x0b", b"a", b"{}", b"\xff"]))


@settings(max_examples=500)
@given(pieces.map(b"".join))
def test_lines_with_text_are_found_and_blank_ones_counted(data):
    position, expected, blank = 0, [], 0
    for text in data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]:
        if text.strip():
            expected.append((position, text))
        else:
            blank += 1
        position += len(text) + 1
    found = text_lines.lines_with_text(data)
    assert (list(found), found.blank) == (expected, blank)


@pytest.mark.parametrize(("unit", "text"), [(JSON, line()), (CSV, "u,i,5,n")])
def test_blank_lines_among_others(unit, text):
    parsed = parse(["", text, "", " ", "\r", text, "", "\t"], unit=unit)
    assert (len(parsed.events), parsed.lines, parsed.filtered) == (2, 8, {"blank_line": 6})


def test_blank_lines_are_no_reason_to_go_line_by_line():
    with mock.patch.object(event_parser, "parse_line_by_line") as fallback:
        parse(["", line(), " ", line(), "\r"])
    assert not fallback.called
