"""A shard's events to records of both stages, on literals: what their form must not tell."""

import numpy as np
import pyarrow as pa

from pipelines.logs.log_format import LogFormat
from pipelines.options import Job
from pipelines.records import examples, negatives, shards, stage_records
from pipelines.records.request_rules import Cutoffs
from pipelines.records.vocabulary import Vocabulary
from sitn_tf import schema

ITEMS = [f"i{n:02d}" for n in range(30)]
IDS = {item: number + schema.FIRST_ID for number, item in enumerate(ITEMS)}
CLICKS = np.arange(30, 0, -1)
LOGS = {"source": "a", "target": "b"}
SHOWN = {"source": LogFormat(), "target": LogFormat(label="c", request="r", score="s")}
NAMES = ("user", "time", "item", "clicked", "request", "score")


def events(rows):
    """Sorted events of rows (user, time, item, clicked[, request, score])."""
    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=False))
    if "score" in columns:
        columns["score"] = pa.array(columns["score"], pa.float32())
    return shards.compact(pa.table(columns), 100)[0]


def vocabulary(known=30):
    return Vocabulary(pa.array(ITEMS[:known]), CLICKS[:known], CLICKS[:known])


def records(source, target, stage, *, known=30, cutoffs=None, **options):
    """By split, the columns of its only chunk; and how many requests each rule left out."""
    job = Job(LOGS, "out", **options)
    tables = {"source": events(source), "target": events(target)}
    vocabularies = dict.fromkeys(schema.DOMAINS, vocabulary(known))
    shard = stage_records.prepare(tables, job, cutoffs or Cutoffs(1000, 2000), vocabularies)
    filtered = {}
    if stage == schema.STAGE1:
        chunks = stage_records.stage1(shard, job)
    else:
        target_items = vocabularies[schema.TARGET]
        popularity = negatives.Popularity(target_items.items, target_items.clicks, 0.75)
        chunks = stage_records.requests(shard, job, schema.TARGET, popularity, filtered)
    return {chunk.split: chunk.columns for chunk in chunks}, filtered


def rows(column: examples.Ragged):
    return [part.tolist() for part in np.split(column.values, column.offsets[1:-1])]


def test_the_place_of_a_click_among_sampled_negatives_tells_nothing():
    source = [(f"u{n}", 1, ITEMS[0], True) for n in range(200)]
    target = [(f"u{n}", 9, ITEMS[n % 30], True) for n in range(200)]
    made, _ = records(source, target, schema.STAGE2, min_target_history=0, negatives=3)
    labels = np.array(rows(made["train"]["labels"]))
    assert labels.shape == (200, 4)
    assert labels.sum(axis=1).tolist() == [1] * 200
    assert 30 < labels.sum(axis=0).min() <= labels.sum(axis=0).max() < 70  # 50 ± 3 s.d. of 6.1
    ids = np.array(rows(made["train"]["candidates"]))
    clicked = ids[labels == 1].tolist()
    users = made["train"]["user_id"].to_pylist()
    assert clicked == [IDS[ITEMS[int(user[1:]) % 30]] for user in users]


def test_the_order_of_what_was_shown_is_not_that_of_the_log():
    source = [(f"u{n}", 1, ITEMS[0], True) for n in range(200)]
    target = [
        (f"u{n}", 9, ITEMS[place], place == 0, "r", 0.5) for n in range(200) for place in range(4)
    ]
    made, _ = records(source, target, schema.STAGE2, formats=SHOWN, min_target_history=0)
    labels = np.array(rows(made["train"]["labels"]))
    assert labels.sum(axis=1).tolist() == [1] * 200
    assert 30 < labels.sum(axis=0).min() <= labels.sum(axis=0).max() < 70
    ids = np.array(rows(made["train"]["candidates"]))
    assert set(ids[labels == 1].tolist()) == {IDS[ITEMS[0]]}


def test_scores_are_kept_of_requests_that_have_all_of_them():
    source = [("u", 1, ITEMS[0], True), ("v", 1, ITEMS[0], True)]
    target = [
        ("u", 9, ITEMS[1], True, "r", 0.25), ("u", 9, ITEMS[2], False, "r", None),
        ("v", 9, ITEMS[1], True, "q", 0.5), ("v", 9, ITEMS[2], False, "q", 0.75),
    ]  # fmt: skip
    made, _ = records(source, target, schema.STAGE2, formats=SHOWN, min_target_history=0)
    columns = made["train"]
    found = dict(zip(columns["user_id"].to_pylist(), rows(columns["logged_scores"]), strict=True))
    assert found["u"] == []
    order = dict(zip(columns["user_id"].to_pylist(), rows(columns["labels"]), strict=True))["v"]
    assert found["v"] == [0.5 if clicked else 0.75 for clicked in order]


def test_a_click_that_could_be_no_negative_is_no_request():
    """It alone would be unknown, or without a click in training: known to be the click."""
    source = [("u", 1, ITEMS[0], True)]
    target = [("u", 9, ITEMS[3], True), ("u", 10, ITEMS[29], True)]
    made, filtered = records(source, target, schema.STAGE2, known=20, min_target_history=0)
    assert made["train"]["request_time"].tolist() == [9]
    assert filtered == {"clicked_item_unknown": 1}
    both, filtered = records(
        source, target, schema.STAGE2, known=20, min_target_history=0, keep_unknown_clicks=True
    )
    assert sorted(both["train"]["request_time"].tolist()) == [9, 10]
    assert filtered == {}


def test_stage_1_has_the_users_of_both_domains_before_the_cutoff():
    source = [("u", 1, ITEMS[0], True), ("v", 1, ITEMS[0], True), ("w", 1, ITEMS[0], True)]
    target = [
        ("u", 9, ITEMS[1], True), ("u", 10, ITEMS[2], True),
        ("v", 10, ITEMS[1], True),  # at the cutoff, so not before it
        ("x", 5, ITEMS[1], True),
    ]  # fmt: skip
    made, _ = records(
        source, target, schema.STAGE1, cutoffs=Cutoffs(10, 20), min_source_history=0,
        min_target_history=0, stage1_holdout=0.0,
    )  # fmt: skip
    assert list(made) == ["train"]
    columns = made["train"]
    assert columns["user_id"].to_pylist() == ["u"]
    assert columns["cutoff_time"].tolist() == [10]
    assert columns["history_time"].tolist() == [9]
    lengths = [columns[f"{d}_history"].stop - columns[f"{d}_history"].start for d in schema.DOMAINS]
    assert [length.tolist() for length in lengths] == [[1], [1]]
