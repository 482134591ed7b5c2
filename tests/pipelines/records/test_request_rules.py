"""Requests and their splits, on literals."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.logs.log_format import LogFormat
from pipelines.options import Job
from pipelines.records import request_rules, shards, vocabulary
from pipelines.records.request_rules import NO_SPLIT, Cutoffs
from pipelines.verification import user_events

TRAIN, VALIDATION, TEST = 0, 1, 2
LOGS = {"source": "a", "target": "b"}
SHOWN = {"source": LogFormat(), "target": LogFormat(label="c", request="r")}


def events(rows, *, request=False):
    """Sorted events of rows (user, time, item, clicked, request)."""
    names = ("user", "time", "item", "clicked", "request")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=False)) for row in rows])
    table = table if request else table.select(names[:4])
    return shards.compact(table, 100)[0]


def planned(source, target, cutoffs=None, **options):
    request = "formats" in options
    cutoffs = cutoffs or Cutoffs(10, 20)
    tables = {"source": events(source), "target": events(target, request=request)}
    users, coded = shards.coded(tables)
    job = Job(LOGS, "out", **options)
    plan = request_rules.plan(coded, np.arange(len(users), dtype=np.uint64), job, cutoffs)
    return plan, coded["target"]


def test_each_click_is_a_request_at_its_time():
    target = [("u", t, f"i{t}", True) for t in (5, 9, 10, 19, 20, 30)]
    plan, _ = planned([("u", 1, "s", True)], target)
    assert plan.asked["target"].requests.time.tolist() == [5, 9, 10, 19, 20, 30]
    assert plan.asked["target"].split.tolist() == [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    assert plan.user_cutoff.tolist() == [10]


def test_requests_without_history_are_filtered_by_rule():
    target = [("u", 5, "a", True), ("u", 7, "b", True), ("v", 8, "c", True)]
    plan, _ = planned([("u", 5, "s", True)], target, min_target_history=1)
    # u at 5: the source click has the same time; v: no source; u at 7 has one of each
    assert plan.asked["target"].split.tolist() == [NO_SPLIT, TRAIN, NO_SPLIT]
    assert plan.asked["target"].filtered == {"source_history_too_short": 2}


def test_impressions_of_a_request_belong_together_from_its_first_time():
    target = [
        ("u", 7, "a", False, "r1"), ("u", 8, "b", True, "r1"), ("u", 8, "c", False, "r2"),
        ("v", 9, "a", True, "r1"),
    ]  # fmt: skip
    source = [("u", 1, "s", True), ("v", 1, "s", True)]
    plan, found = planned(source, target, formats=SHOWN)
    asked = plan.asked["target"].requests
    shown = [
        sorted(found.items.take(pa.array(found.item[asked.rows[a:b]])).to_pylist())
        for a, b in zip(asked.start, asked.stop, strict=True)
    ]
    assert list(zip(asked.user.tolist(), asked.time.tolist(), shown, strict=True)) == [
        (0, 7, ["a", "b"]), (0, 8, ["c"]), (1, 9, ["a"])]  # fmt: skip
    # only the click of u at 8 is history, and only after it
    assert len(plan.clicks["target"].time) == 2


def groups(requests, found):
    """(user, first time, last time, items) of each request."""
    return [
        (u, t, last, sorted(found.items.take(pa.array(found.item[requests.rows[a:b]])).to_pylist()))
        for u, t, last, a, b in zip(
            *(x.tolist() for x in (requests.user, requests.time, requests.last)),
            requests.start, requests.stop, strict=True,
        )
    ]  # fmt: skip


def test_an_id_given_again_is_another_request():
    target = [
        ("u", 5, "a", False, "r"), ("u", 15, "b", True, "r"), ("u", 16, "c", True, "r"),
        ("u", 30, "d", False, "r"), ("v", 16, "a", False, "r"),
    ]  # fmt: skip
    plan, found = planned([("u", 1, "s", True)], target, formats=SHOWN, request_seconds=10)
    assert groups(plan.asked["target"].requests, found) == [
        (0, 5, 15, ["a", "b"]), (0, 16, 16, ["c"]), (0, 30, 30, ["d"]), (1, 16, 16, ["a"]),
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from("uv"), st.integers(0, 60), st.sampled_from("rs")),
             max_size=30),
    st.integers(0, 25),
)  # fmt: skip
def test_requests_of_ids_given_again_against_a_loop(rows, longest):
    rows = [(u, t, f"i{n}", False, r) for n, (u, t, r) in enumerate(rows)]
    rows.append(("w", 0, "i", False, "r"))
    plan, found = planned([("w", 0, "s", True)], rows, formats=SHOWN, request_seconds=longest)
    expected = []
    for index, user in enumerate(sorted({row[0] for row in rows})):
        of_user = sorted((t, r, i) for u, t, i, _, r in rows if u == user)
        events, keys = [(t, i, False) for t, _, i in of_user], [r for _, r, _ in of_user]
        expected += [
            (index, request.first, request.last, sorted(request.shown))
            for request in user_events.requests(events, keys, longest)
        ]
    assert groups(plan.asked["target"].requests, found) == expected


def test_lines_of_a_request_and_item_are_one_candidate():
    names = ("user", "time", "item", "clicked", "request", "score")
    rows = [
        ("u", 5, "a", False, "r", 0.5), ("u", 5, "b", False, "r", 0.25),
        ("u", 7, "b", True, "r", None), ("u", 7, "c", False, "r", None),
        ("u", 9, "b", True, "q", 0.75),
    ]  # fmt: skip
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    _, coded = shards.coded({"target": shards.compact(table, 100)[0]})
    job = Job(LOGS, "out", formats=SHOWN)
    found = request_rules.find(coded["target"], np.zeros(1, np.uint64), job, "target")
    items = coded["target"].items.take(pa.array(coded["target"].item[found.rows])).to_pylist()
    candidates = [
        (t, [(items[i], bool(found.clicked[i]), float(found.score[i])) for i in range(a, b)])
        for t, a, b in zip(found.time.tolist(), found.start, found.stop, strict=True)
    ]
    assert [(t, c[:2]) for t, c in candidates] == [
        (5, [("a", False, 0.5), ("b", True, 0.25)]), (9, [("b", True, 0.75)]),
    ]  # fmt: skip
    assert candidates[0][1][2][:2] == ("c", False)
    assert np.isnan(candidates[0][1][2][2])
    assert found.merged == 1
    # the click's own time is that of the history
    assert request_rules.Clicks.of(coded["target"]).time.tolist() == [7, 9]


def test_requests_with_labels_from_after_a_cutoff_are_filtered():
    source = [("u", 1, "s", True)]
    target = [("u", 9, "a", False, "r1"), ("u", 10, "b", True, "r1"), ("u", 19, "c", True, "r2")]
    plan, _ = planned(source, target, formats=SHOWN)
    assert plan.asked["target"].split.tolist() == [NO_SPLIT, VALIDATION]
    assert plan.asked["target"].filtered == {"crosses_a_cutoff": 1}
    by_last = [("u", 9, "a", False, "r1"), ("u", 12, "b", True, "r1"),
               ("u", 11, "c", True, "r2"), ("u", 13, "d", True, "r3")]  # fmt: skip
    plan, _ = planned(source, by_last, Cutoffs(None, None), formats=SHOWN, split="last")
    assert plan.asked["target"].split.tolist() == [NO_SPLIT, VALIDATION, TEST]
    assert plan.asked["target"].filtered == {"at_the_users_cutoff": 1}


def test_source_requests_with_labels_from_after_a_cutoff_are_filtered():
    formats = {"source": LogFormat(label="c", request="r"), "target": LogFormat()}
    rows = [("u", 9, "a", True, "r1"), ("u", 10, "b", True, "r1"), ("u", 12, "c", True, "r2"),
            ("u", 19, "d", True, "r3"), ("u", 20, "e", True, "r3")]  # fmt: skip
    tables = {"source": events(rows, request=True), "target": events([("u", 1, "t", True)])}
    _, coded = shards.coded(tables)
    job = Job(LOGS, "out", formats=formats, source_requests=True)
    of_users = np.arange(1, dtype=np.uint64)
    plan = request_rules.plan(coded, of_users, job, Cutoffs(10, 20))
    asked = request_rules.with_source(plan, coded["source"], of_users, job).asked["source"]
    assert asked.split.tolist() == [NO_SPLIT, VALIDATION, NO_SPLIT]
    assert asked.filtered == {"in_the_test_period": 1, "crosses_a_cutoff": 1}


def test_last_requests():
    user = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    time = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    eligible = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    split, cutoff = request_rules.last_requests(user, time, eligible, 3)
    # the last of user 0 does not count; user 1 has too few
    assert split.tolist() == [TRAIN, VALIDATION, TEST, TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, TEST]
    assert cutoff.tolist() == [2, request_rules.TIME_LIMIT, 8]


def test_last_split_leaves_out_training_at_the_cutoff():
    target = [("u", t, i, True) for t, i in ((3, "a"), (5, "b"), (5, "c"), (6, "d"))]
    plan, found = planned([("u", 1, "s", True)], target, Cutoffs(None, None), split="last")
    assert plan.asked["target"].split.tolist() == [TRAIN, NO_SPLIT, VALIDATION, TEST]
    assert plan.asked["target"].filtered == {"at_the_users_cutoff": 1}
    assert plan.user_cutoff.tolist() == [5]
    counts = vocabulary.count_items(found, plan.user_cutoff)
    assert counts.to_pylist() == [{"item": "a", "clicks": 1, "impressions": 1}]


def test_user_without_held_out_requests_is_known_to_the_end():
    plan, _ = planned(
        [("u", 1, "s", True)], [("u", 5, "a", True)], Cutoffs(None, None), split="last"
    )
    assert plan.asked["target"].split.tolist() == [TRAIN]
    assert plan.user_cutoff.tolist() == [6]


def test_too_many_candidates_are_filtered():
    target = [("u", 5, f"i{n}", n == 0, "r") for n in range(5)]
    plan, _ = planned([("u", 1, "s", True)], target, formats=SHOWN, max_candidates=4)
    assert plan.asked["target"].filtered == {"too_many_candidates": 1}


def test_vocabulary_order():
    counts = vocabulary.merge_counts([
        pa.table([["b", "a"], [1, 2], [1, 2]], schema=vocabulary.COUNTS),
        pa.table([["c", "b", "d"], [2, 1, 0], [2, 1, 9]], schema=vocabulary.COUNTS),
    ])  # fmt: skip
    ordered = vocabulary.ordered(counts, 1)
    assert ordered["item"].to_pylist() == ["a", "b", "c", "d"]
    assert ordered["clicks"].to_pylist() == [2, 2, 2, 0]
    assert vocabulary.ordered(counts, 3)["item"].to_pylist() == ["d"]
    known = vocabulary.ordered(counts, 1, pa.array(["x", "c"]))
    assert known.to_pydict() == {"item": ["x", "c", "a", "b", "d"], "clicks": [0, 2, 2, 2, 0],
                                 "impressions": [0, 2, 2, 2, 9]}  # fmt: skip


def test_counts_of_many_tables_are_merged_as_they_come(monkeypatch):
    tables = [pa.table([[f"i{n % 7}", "all"], [n, 1], [n, 2]], schema=vocabulary.COUNTS)
              for n in range(50)]  # fmt: skip
    at_once = vocabulary.merge_counts(tables)
    monkeypatch.setattr(vocabulary, "_FEW_ROWS", 3)
    assert vocabulary.merged(iter(tables)).equals(at_once)
    assert at_once.to_pylist()[0] == {"item": "all", "clicks": 50, "impressions": 100}


def test_ids_of_unknown_items():
    table = pa.table([["a", "b"], [1, 1], [1, 1]], schema=vocabulary.COUNTS)
    assert vocabulary.Vocabulary.of(table).ids(pa.array(["b", "z", "a"])).tolist() == [3, 1, 2]
