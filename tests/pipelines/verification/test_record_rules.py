"""Rules of single records, on literals, at the very second at which each begins to hold."""

import itertools

import pytest
import tensorflow as tf

from pipelines.options import Job
from pipelines.verification.findings import Findings
from pipelines.verification.record_rules import RecordChecks, read_tfrecords
from sitn_tf import schema

BY_TIME = {"kind": "time", "train_until": 20, "validation_until": 30}
BY_LAST = {"kind": "last"}

REQUEST = {
    "where": "here", "user_id": "u", "request_time": 10, "history_time": 9,
    "source_history": [2, 3], "source_times": [7, 9], "target_history": [2], "target_times": [8],
    "candidates": [2, 3], "labels": [1, 0], "logged_scores": [],
}  # fmt: skip
USER = {**REQUEST, "cutoff_time": 20}

PRECEDES = "histories precede their request or cutoff"
TIMES_PRECEDE = "times of clicks precede their request or cutoff"
SPLITS = "splits don't cross in time"
ONE_CUTOFF = "stage 1 saw nothing past the training cutoff"


def checks(split):
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash="",
        dataset_hash="",
        inputs=[],
        options={},
        split=split,
        max_history=2,
        negatives={},
        lines={},
        vocabularies={"source.item": {"size": 4}, "target.item": {"size": 4}},
        records={},
        shards={},
        versions={},
        click_times=True,
    )
    findings = Findings()
    job = Job({schema.SOURCE: "a", schema.TARGET: "b"}, "out")
    return RecordChecks(manifest, job, findings), findings


def wrong_of_request(split="train", domain=schema.TARGET, **changes):
    made, findings = checks(BY_TIME)
    made.request(domain, split, REQUEST | changes)
    return set(findings.wrong)


def wrong_of_user(**changes):
    made, findings = checks(BY_TIME)
    made.stage1(USER | changes)
    return set(findings.wrong)


def test_nothing_is_wrong_with_these():
    assert wrong_of_request() == set()
    assert wrong_of_user() == set()


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        # A click of the request's own second may have come after it.
        ({"history_time": 10, "source_times": [7, 10]}, {PRECEDES, TIMES_PRECEDE}),
        ({"history_time": 10}, {PRECEDES, "history time is the newest of the clicks' times"}),
        ({"source_times": [7, 10]},
         {TIMES_PRECEDE, "history time is the newest of the clicks' times"}),
        ({"source_times": [9, 7]}, {"times of clicks are in order"}),
        ({"source_times": [9]}, {"each click of a history has a time"}),
        ({"source_history": [2, 3, 2], "source_times": [7, 7, 9]},
         {"histories are no longer than the manifest says"}),
        ({"source_history": [], "source_times": [], "target_history": [], "target_times": []},
         {"only empty histories have no time", "history time is the newest of the clicks' times"}),
        ({"candidates": [2, 4]}, {"ids are in their vocabulary"}),
        ({"candidates": [2, 0]}, {"ids are in their vocabulary"}),
        ({"candidates": [3, 3]}, {"no candidate is there twice"}),
        ({"candidates": [1, 1]}, set()),  # two unknown items
        ({"labels": [1]}, {"each candidate has a label"}),
        ({"candidates": [], "labels": []}, {"each candidate has a label"}),
        ({"logged_scores": [0.5]}, {"scores are for all candidates or none"}),
        ({"logged_scores": [0.5, 0.1]}, set()),
    ],
)  # fmt: skip
def test_a_request(changes, wrong):
    assert wrong_of_request(**changes) == wrong


@pytest.mark.parametrize(
    ("split", "fine"),
    [
        ("train", [0, 19]), ("validation", [20, 29]), ("test", [30, 1 << 40]),
    ],
)  # fmt: skip
def test_a_split_ends_where_the_next_begins(split, fine):
    for time in (0, 19, 20, 29, 30, 1 << 40):
        found = wrong_of_request(split, request_time=time, history_time=-1, source_times=[-1, -1],
                                 target_times=[-1])  # fmt: skip
        assert (SPLITS in found) == (not fine[0] <= time <= fine[1])


@pytest.mark.parametrize(
    ("time", "split"), [(19, "train"), (20, "validation"), (29, "validation"), (30, None)]
)
def test_source_requests_end_where_the_targets_test_begins(time, split):
    what = "source requests are split where the target's are"
    asked = {"request_time": time, "source_candidates": [2, 3]}
    for given in (schema.TRAIN, schema.VALIDATION):
        assert (what in wrong_of_request(given, schema.SOURCE, **asked)) == (given != split)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"cutoff_time": 21}, {ONE_CUTOFF}),
        ({"cutoff_time": 10}, set()),
        ({"cutoff_time": 9}, {PRECEDES, TIMES_PRECEDE}),
        ({"target_history": [], "target_times": []}, {"stage 1 knows both histories"}),
    ],
)
def test_a_user(changes, wrong):
    assert wrong_of_user(**changes) == wrong


def test_a_user_is_there_once():
    made, findings = checks(BY_TIME)
    made.stage1(USER)
    made.stage1(USER)
    assert set(findings.wrong) == {"stage 1 has a user once"}


def test_a_request_is_there_once():
    made, findings = checks(BY_TIME)
    made.request(schema.TARGET, "train", REQUEST)
    made.request(schema.TARGET, "train", REQUEST | {"labels": [0, 1]})  # another click of then
    assert not findings.wrong
    made.request(schema.TARGET, "train", REQUEST)
    assert set(findings.wrong) == {"no request is there twice"}


@pytest.mark.parametrize(
    ("times", "wrong"),
    [
        ({"train": [10, 11], "validation": [12], "test": [13]}, set()),
        ({"train": [10], "validation": [12], "test": [12]}, set()),
        ({"train": [12], "validation": [12], "test": [13]}, {SPLITS}),
        ({"train": [10], "validation": [14], "test": [13]}, {SPLITS}),
        ({"train": [14], "test": [13]}, {SPLITS}),
        ({"train": [10], "validation": [12, 12]}, {"a user validates and tests once at most"}),
        ({"test": [13, 13]}, {"a user validates and tests once at most"}),
    ],
)
def test_a_users_last_requests(times, wrong):
    made, findings = checks(BY_LAST)
    clicks = itertools.cycle([[1, 0], [0, 1]])  # those of one second are of two items
    for split, asked in times.items():
        for time in asked:
            record = REQUEST | {"request_time": time, "labels": next(clicks)}
            made.request(schema.TARGET, split, record)
    made.settle()
    assert set(findings.wrong) == wrong


def test_a_users_cutoff_is_that_of_its_validation_request():
    made, findings = checks(BY_LAST)
    made.request(schema.TARGET, "validation", REQUEST | {"request_time": 12})
    made.request(schema.TARGET, "test", REQUEST | {"request_time": 15})
    made.settle()
    made.stage1(USER | {"cutoff_time": 12})
    assert not findings.wrong
    made.stage1(USER | {"user_id": "another of no held-out request", "cutoff_time": 99})
    assert not findings.wrong
    made, findings = checks(BY_LAST)
    made.request(schema.TARGET, "validation", REQUEST | {"request_time": 12})
    made.settle()
    made.stage1(USER | {"cutoff_time": 13})
    assert set(findings.wrong) == {ONE_CUTOFF}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (0, "bad length at byte 0"),
        (9, "bad length at byte 0"),
        (12, "bad checksum at byte 0"),
        (16, "bad checksum at byte 0"),
        (21 + 14, "bad checksum at byte 21"),
        (-1, "bad checksum at byte 21"),
    ],
)
def test_a_record_that_is_altered_is_named_by_its_place(tmp_path, place, told):
    """Two records: 8 bytes of length, 4 of its checksum, 5 of content, 4 of its checksum each."""
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"first")
        writer.write(b"other")
    whole = bytearray(path.read_bytes())
    assert list(read_tfrecords(path)) == [b"first", b"other"]
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=f"^{told}$"):
        list(read_tfrecords(path))


@pytest.mark.parametrize(
    ("size", "told"), [(20, "cut off at byte 0"), (21 + 5, "bad length at byte 21")]
)
def test_a_file_that_is_cut_is_named_by_its_place(tmp_path, size, told):
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"first")
        writer.write(b"other")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"^{told}$"):
        list(read_tfrecords(path))
