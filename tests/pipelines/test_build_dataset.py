"""The whole job on small logs, against plain loops over the same lines."""

import collections
import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from pipelines import build_dataset
from pipelines.job import assembly, preconditions, staging
from pipelines.logs import line_counts
from pipelines.logs.log_format import LogFormat
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs

LONGEST = 6
FLAGS = [f"--max_history={LONGEST}", "--shards=3", "--negatives=4", "--block_bytes=4000"]


def build(output, *flags):
    return build_dataset.run([f"--output={output}", *FLAGS, *flags])


def events_of(path):
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode().splitlines()]


class Reference:
    """Loops that are slow and plainly right."""

    def __init__(self, folder):
        self.clicks = {}
        for domain, name in (("source", "source.jsonl"), ("target", "target.jsonl.gz")):
            by_user = collections.defaultdict(set)
            for event in events_of(folder / name):
                if event.get("clicked", 1):
                    by_user[event["user_id"]].add((event["timestamp"], event["item_id"]))
            self.clicks[domain] = {user: sorted(found) for user, found in by_user.items()}

    def history(self, domain, user, moment, known):
        before = [(t, i) for t, i in self.clicks[domain].get(user, []) if t < moment][-LONGEST:]
        return [i if i in known[domain] else "?" for _, i in before], max(
            (t for t, _ in before), default=-1
        )

    def vocabulary(self, domain, cutoff_of):
        counts = collections.Counter(
            item
            for user, found in self.clicks[domain].items()
            for moment, item in found
            if moment < cutoff_of(user)
        )
        return sorted(counts, key=lambda item: (-counts[item], item))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs")
    logs.two_logs(path)
    return path


@pytest.fixture(scope="module")
def by_time(folder):
    return folder / "time", build(folder / "time", "--source_requests", *logs.flags_of(folder))


@pytest.fixture(scope="module")
def by_last(folder):
    return folder / "last", build(
        folder / "last", "--split=last", "--source_requests", *logs.flags_of(folder)
    )


def vocabulary(data_dir, domain):
    return (data_dir / schema.vocabulary_path(domain, "item")).read_text().split()


def check_histories(data_dir, reference, known, stage, splits, time_name):
    records = []
    for split in splits:
        for record in logs.read_records(data_dir, stage, split):
            moment, newest = record[time_name], []
            for domain in schema.DOMAINS:
                expected, latest = reference.history(domain, record["user_id"], moment, known)
                assert record[f"{domain}_history"] == expected
                newest.append(latest)
            assert record["history_time"] == max(newest) < moment
            records.append((split, record))
    return records


def test_stage2_by_time(by_time, folder):
    data_dir, manifest = by_time
    reference = Reference(folder)
    known = {domain: vocabulary(data_dir, domain) for domain in schema.DOMAINS}
    train_until, validation_until = (
        manifest.split["train_until"], manifest.split["validation_until"])  # fmt: skip
    for domain in schema.DOMAINS:
        assert known[domain] == reference.vocabulary(domain, lambda user: train_until)
    records = check_histories(
        data_dir, reference, known, "stage2", schema.STAGE2_SPLITS, "request_time"
    )
    found = collections.Counter()
    for split, record in records:
        user, moment = record["user_id"], record["request_time"]
        assert split == (
            "train" if moment < train_until
            else "validation" if moment < validation_until
            else "test"
        )  # fmt: skip
        clicked = {item for _, item in reference.clicks["target"][user]}
        assert sum(record["labels"]) == 1
        assert len(record["candidates"]) == len(record["labels"]) == 5
        assert len(set(record["candidates"])) == 5
        assert record["logged_scores"] == []
        for item, label in zip(record["candidates"], record["labels"], strict=True):
            if not label:
                assert item not in clicked
                assert item in known["target"]
        found[user, moment, record["candidates"][record["labels"].index(1)]] += 1
    expected = collections.Counter(
        (user, moment, item)
        for user, clicks in reference.clicks["target"].items()
        for moment, item in clicks
        if reference.history("source", user, moment, known)[0]
    )
    unknown = [request for request in expected if request[2] not in known["target"]]
    assert len(unknown) == manifest.lines["requests"]["filtered"]["clicked_item_unknown"] > 0
    for request in unknown:
        del expected[request]
    assert found == expected


def test_source_requests_change_nothing_else(by_time, folder):
    data_dir, _ = by_time
    build(folder / "without", *logs.flags_of(folder))
    without, with_them = (
        json.loads((made / schema.CHECKSUMS_FILE).read_text())
        for made in (folder / "without", data_dir)
    )
    assert without.items() <= with_them.items()
    more = with_them.keys() - without.keys()
    assert {name.split("/")[0] for name in more} == {schema.SOURCE_REQUESTS}
    assert not (folder / "without" / schema.SOURCE_REQUESTS).exists()


def test_unknown_clicks_are_kept_when_asked_for(by_time, folder):
    _, manifest = by_time
    kept = build(
        folder / "unknown", *logs.flags_of(folder), "--keep_unknown_clicks",
    )  # fmt: skip
    more = {s: n - manifest.records["stage2"][s] for s, n in kept.records["stage2"].items()}
    assert sum(more.values()) == manifest.lines["requests"]["filtered"]["clicked_item_unknown"]
    assert more["train"] == 0


def test_stage1_by_time(by_time, folder):
    data_dir, manifest = by_time
    reference = Reference(folder)
    known = {domain: vocabulary(data_dir, domain) for domain in schema.DOMAINS}
    records = check_histories(
        data_dir, reference, known, "stage1", schema.STAGE1_SPLITS, "cutoff_time"
    )
    users = [record["user_id"] for _, record in records]
    cutoff = manifest.split["train_until"]
    assert {record["cutoff_time"] for _, record in records} == {cutoff}
    assert sorted(users) == sorted(
        user
        for user in reference.clicks["source"]
        if all(reference.history(d, user, cutoff, known)[0] for d in schema.DOMAINS)
    )
    assert {split for split, _ in records} == {"train", "validation"}


def test_last_split(by_last, folder):
    data_dir, _ = by_last
    reference = Reference(folder)
    times = {split: collections.defaultdict(list) for split in schema.STAGE2_SPLITS}
    cutoffs = {}
    for split in schema.STAGE2_SPLITS:
        for record in logs.read_records(data_dir, "stage2", split):
            times[split][record["user_id"]].append(record["request_time"])
    for user, [test] in times["test"].items():
        assert max(times["train"].get(user, []), default=-1) < min(
            times["validation"].get(user, [test])
        )
    for user, [validation] in times["validation"].items():
        assert max(times["train"].get(user, []), default=-1) < validation
        assert validation <= min(times["test"].get(user, [validation]))
    for user, clicks in reference.clicks["target"].items():  # what is filtered still counts
        first = min((t for t, _ in reference.clicks["source"].get(user, [])), default=10**10)
        asked = [moment for moment, _ in clicks if moment > first]
        if len(asked) >= 3:
            cutoffs[user] = asked[-2]
    assert times["validation"].items() <= {u: [c] for u, c in cutoffs.items()}.items()
    for split in schema.STAGE1_SPLITS:
        for record in logs.read_records(data_dir, "stage1", split):
            assert record["cutoff_time"] <= cutoffs.get(record["user_id"], 10**10)
    for domain in schema.DOMAINS:
        expected = reference.vocabulary(domain, lambda user: cutoffs.get(user, 10**10))
        assert vocabulary(data_dir, domain) == expected


def _ends_of_time(manifest, reference):
    """By user, the training cutoff and where the test begins, by loops over the target's clicks."""
    if manifest.split["kind"] == "time":
        ends = manifest.split["train_until"], manifest.split["validation_until"]
        return dict.fromkeys(reference.clicks["source"], ends)
    ends = {}
    for user in reference.clicks["source"]:
        first = min(t for t, _ in reference.clicks["source"][user])
        asked = [t for t, _ in reference.clicks["target"].get(user, []) if t > first]
        ends[user] = (asked[-2], asked[-1]) if len(asked) >= 3 else (10**10, 10**10)
    return ends


@pytest.mark.parametrize("kind", ["by_time", "by_last"])
def test_source_requests(kind, folder, request):
    data_dir, manifest = request.getfixturevalue(kind)
    reference = Reference(folder)
    known = {domain: vocabulary(data_dir, domain) for domain in schema.DOMAINS}
    records = check_histories(
        data_dir,
        reference,
        known,
        schema.SOURCE_REQUESTS,
        schema.SOURCE_REQUESTS_SPLITS,
        "request_time",
    )
    ends = _ends_of_time(manifest, reference)
    assert any(not record["target_history"] for _, record in records)
    assert any(not record["source_history"] for _, record in records)
    recorded = collections.Counter()
    for split, record in records:
        candidates, labels = record["source_candidates"], record["labels"]
        assert len(candidates) == len(set(candidates)) == 5
        assert sum(labels) == 1
        ever = {item for _, item in reference.clicks["source"][record["user_id"]]}
        for item, label in zip(candidates, labels, strict=True):
            assert label or item not in ever
            assert item in known["source"]
        click = candidates[labels.index(1)]
        recorded[split, record["user_id"], record["request_time"], click] += 1
    expected, filtered = collections.Counter(), collections.Counter()
    for user, clicks in reference.clicks["source"].items():
        cutoff, end = ends[user]
        for moment, item in clicks:
            if moment >= end:
                filtered["in_the_test_period"] += 1
            elif item not in known["source"]:
                filtered["clicked_item_unknown"] += 1
            else:
                expected["train" if moment < cutoff else "validation", user, moment, item] += 1
    assert recorded == expected
    assert {split for split, *_ in expected} == {"train", "validation"}
    told = manifest.lines["source_requests"]
    assert told["filtered"] == filtered
    assert told["used"] == sum(manifest.records["source_requests"].values()) == len(records)
    assert told["total"] == sum(map(len, reference.clicks["source"].values()))


def test_impressions(tmp_path):
    shown = logs.impressions(3, 20, 30, 150)
    logs.write_lines(tmp_path / "source.jsonl", logs.clicks(1, 20, 50, 300, "s"))
    logs.write_lines(tmp_path / "target.jsonl.gz", shown)
    manifest = build(
        tmp_path / "out", *logs.flags_of(tmp_path), "--label_field=clicked",
        "--request_field=request_id", "--score_field=score",
    )  # fmt: skip
    cutoffs = [manifest.split[name] for name in ("train_until", "validation_until")]
    reference = Reference(tmp_path)
    known = {domain: vocabulary(tmp_path / "out", domain) for domain in schema.DOMAINS}
    records = check_histories(
        tmp_path / "out", reference, known, "stage2", schema.STAGE2_SPLITS, "request_time"
    )
    by_request = collections.defaultdict(list)
    for row in shown:
        by_request[row["request_id"]].append(row)
    expected = collections.Counter()
    for rows in by_request.values():
        user, moment = rows[0]["user_id"], min(row["timestamp"] for row in rows)
        if any(moment < cutoff <= max(row["timestamp"] for row in rows) for cutoff in cutoffs):
            continue
        if reference.history("source", user, moment, known)[0]:
            expected[
                user, moment,
                frozenset((r["item_id"] if r["item_id"] in known["target"] else "?",
                           r["clicked"], round(r["score"], 5)) for r in rows),
            ] += 1  # fmt: skip
    found = collections.Counter(
        (
            r["user_id"], r["request_time"],
            frozenset(
                (i, c, round(s, 5))
                for i, c, s in zip(r["candidates"], r["labels"], r["logged_scores"], strict=True)
            ),
        )
        for _, r in records
    )  # fmt: skip
    assert found == expected
    places = [place for _, r in records for place, label in enumerate(r["labels"]) if label]
    assert len(set(places)) == 4  # the place tells nothing


def test_lines_add_up(by_time):
    _, manifest = by_time
    for domain in schema.DOMAINS:
        found = manifest.lines[domain]
        assert found["total"] == 403
        assert found["filtered"]["duplicate"] >= 3
        assert found["used"] + sum(found["filtered"].values()) == 403
    asked = manifest.lines["requests"]
    assert asked["used"] == sum(manifest.records["stage2"].values())
    assert asked["filtered"].keys() == {"source_history_too_short", "clicked_item_unknown"}
    assert asked["used"] + sum(asked["filtered"].values()) == asked["total"]


@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
def test_tfds_opens_it(by_time, stage):
    data_dir, manifest = by_time
    builder = tfds.builder_from_directory(data_dir / stage)
    for split, count in manifest.records[stage].items():
        rows = list(tfds.as_numpy(builder.as_dataset(split=split)))
        assert len(rows) == builder.info.splits[split].num_examples == count
        assert set(rows[0]) == {f.name for f in schema.STAGE_FEATURES[stage]}


def test_shard_files_are_what_the_manifest_says(by_time):
    data_dir, manifest = by_time
    for stage, splits in manifest.records.items():
        for split, count in splits.items():
            paths = sorted(data_dir.glob(schema.shard_glob(stage, split)))
            names = [str(path.relative_to(data_dir)) for path in paths]
            assert sum(manifest.shards[name] for name in names) == count
            assert names[0].endswith(f"-00000-of-{len(names):05d}")


def test_options_of_another_run_do_not_linger(by_time, folder):
    _, manifest = by_time
    assert manifest.options["split"] == "time"
    again = build(folder / "again", "--source_requests", *logs.flags_of(folder))
    assert again.dataset_hash == manifest.dataset_hash


def test_formats_and_blocks_give_the_same_data(by_time, folder, tmp_path):
    for domain, name in (("source", "source.jsonl"), ("target", "target.jsonl.gz")):
        rows = events_of(folder / name)
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, tmp_path / f"{domain}.parquet", row_group_size=100)
        pa.csv.write_csv(table, tmp_path / f"{domain}.csv")
        for part in range(3):  # and in three files, of which two are gzipped
            suffix = ".jsonl.gz" if part else ".jsonl"
            logs.write_lines(tmp_path / f"{domain}-{part}{suffix}", rows[part::3])
    for pattern in ("parquet", "csv", "jsonl"):  # the same data whatever the files
        tail = "-*.jsonl*" if pattern == "jsonl" else f".{pattern}"
        found = build(
            tmp_path / f"from-{pattern}", f"--source_log={tmp_path}/source{tail}",
            f"--target_log={tmp_path}/target{tail}", "--block_bytes=333",
            "--source_requests",
        )  # fmt: skip
        assert found.dataset_hash == by_time[1].dataset_hash, pattern


def test_item_files_of_another_shape(folder, tmp_path):
    logs.write_lines(tmp_path / "items.jsonl", [{"asin": "t1"}, {"asin": "t2"}])
    with pytest.raises(
        InputError,
        match=r"2 of 2 lines of the target item files were rejected.*item_id: 2"
        r".*: check --items_item_field; that line has asin",
    ):
        build(
            tmp_path / "out", *logs.flags_of(folder), f"--target_items={tmp_path}/items.jsonl",
        )  # fmt: skip


def test_bad_rows_of_item_files_are_kept_rejects(folder, tmp_path):
    good = [f"t{n}" for n in range(40)]
    pq.write_table(pa.table({"item_id": [*good, None]}), tmp_path / "target.parquet")
    text = "item_id,title\n" + "".join(f"s{n},A\n" for n in range(40)) + "\ns40,A,B\n"
    (tmp_path / "source.csv").write_text(text)
    flags = [
        *logs.flags_of(folder),
        f"--target_items={tmp_path}/target.parquet", f"--source_items={tmp_path}/source.csv",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"1 of 4\d lines of the \w+ item files were rejected"):
        build(tmp_path / "out", *flags)
    manifest = build(tmp_path / "out", *flags, "--max_reject_rate=0.1")
    assert manifest.lines["target_items"] == {
        "total": 41, "used": 40, "filtered": {}, "rejected": {"missing field item_id": 1}
    }  # fmt: skip
    assert manifest.lines["source_items"] == {
        "total": 42, "used": 40, "filtered": {"blank_line": 1},
        "rejected": {"wrong number of columns": 1},
    }  # fmt: skip
    kept = (tmp_path / "out" / "rejects" / "part-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in kept] == ["s40,A,B", '{"item_id": null}']


def test_empty_validation_split(folder, tmp_path, capsys):
    manifest = build(
        tmp_path / "out", *logs.flags_of(folder), "--validation_fraction=0", "--stage1_holdout=0",
    )  # fmt: skip
    assert manifest.records["stage2"]["validation"] == 0
    assert "note: stage2 has no validation records" in capsys.readouterr().out
    builder = tfds.builder_from_directory(tmp_path / "out" / "stage2")
    assert set(builder.info.splits) == {"train", "test"}


# Errors a user can mend: one line, with the value and the remedy.


def lines_file(folder, name, count=50, prefix="i", users=5):
    return logs.write_lines(folder / name, logs.clicks(5, users, 9, count, prefix))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split=lastt"], "--split=lastt is not one of: time, last"),
        (["--format=xml"], "--format=xml is not one of: auto, jsonl, csv, parquet"),
        (["--time_unit=h"], "--time_unit=h is not one of: s, ms, us, ns, order"),
        (["--time_unit=order"], "--time_unit=order has no moment to split at: give --split=last"),
        (
            ["--time_unit=order", "--split=last", "--click_times"],
            "--click_times needs times, and --time_unit=order has none: leave it out",
        ),
        (["--shards=0"], "--shards=0 is not at least 1"),
        (["--negatives=0"], "--negatives=0 is not at least 1"),
        (["--max_reject_rate=2"], r"--max_reject_rate=2.0 is not in \[0, 1\]"),
        (["--test_fraction=0.95"], "--test_fraction=0.95 leave nothing to train on"),
        (["--train_until=5"], "--train_until and --validation_until go together"),
        (["--train_until=9", "--validation_until=5"], "--train_until=9 must be positive and not"),
        (["--split=last", "--train_until=5", "--validation_until=9"], "for --split=time only"),
        (["--min_rating=4"], "--rating_field and --min_rating go together"),
        (["--request_field=r"], "give --label_field too"),
        (["--item_field=user_id"], "the field user_id of the source log is given two meanings"),
        (["--source_log="], "--source_log is missing: see --help"),
        (["--source_log=nowhere-*.jsonl"], "--source_log=nowhere-.* matches no file"),
        (["--runner=DaskRunner"], "silently gives wrong results"),
        (["--sharts=3"], r"unknown flag --sharts, .*: did you mean --shards\?"),
        (["--max_histroy", "3"], r"unknown flag --max_histroy, .*: did you mean --max_history"),
        (["--direct_num_worker=3"], r"did you mean --direct_num_workers"),
        (["--zzzz"], "unknown flag --zzzz, which neither this command nor Beam has: see --help"),
        (["--direct_num_workers=1", "3"], "unexpected argument '3': flags are given as --name"),
        (["--runner=Nope"], "--runner=Nope: Unexpected pipeline runner: Nope. Valid values are"),
        (
            ["--runner=DataflowRunner"],
            "--runner=DataflowRunner needs other flags: Missing GCS path option: temp_location",
        ),
        (["--runner=PortableRunner"], "--runner=PortableRunner: .* specify a --job_endpoint"),
        (["--output=/proc/x"], "--output=/proc/x can't be written .*: give a folder that you may"),
        (["--output=nope://x/y"], "--output=nope://x/y can't be reached .*: give a known filesys"),
        (["--source_log=nope://x/y"], "--source_log=nope://x/y can't be reached"),
        (["--direct_num_workers=two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--preset=amazon"], "--preset=amazon is not one of: amazon_2014, amazon_2018, indust"),
        (["--shards=many"], "flag --shards=many"),
        (
            ["--user_field=who"],
            "100 of 100 lines of the .* log were rejected.*missing field who.*: "
            r"check --\w+_user_field \(or --user_field\); that line has user_id, item_id, time",
        ),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    lines_file(tmp_path, "s.jsonl", 97)
    lines_file(tmp_path, "t.jsonl", 97)
    with pytest.raises(InputError, match=message) as caught:
        build_dataset.run([
            f"--source_log={tmp_path}/s.jsonl", f"--target_log={tmp_path}/t.jsonl",
            f"--output={tmp_path}/out", *flags,
        ])  # fmt: skip
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.jsonl", "t.jsonl"]


def fails(tmp_path, message, *flags):
    with pytest.raises(InputError, match=message):
        build_dataset.run([
            f"--source_log={tmp_path}/s.jsonl", f"--target_log={tmp_path}/t.jsonl",
            f"--output={tmp_path}/out", *flags,
        ])  # fmt: skip
    assert not list(tmp_path.glob("out*"))


def test_empty_log(tmp_path):
    (tmp_path / "s.jsonl").write_bytes(b"")
    lines_file(tmp_path, "t.jsonl")
    fails(tmp_path, r"--source_log=.*s.jsonl holds no lines: every file is empty")
    (tmp_path / "s.jsonl").write_bytes(b"\n\n")
    fails(tmp_path, "the source log holds no event")


def test_no_shared_users(tmp_path):
    lines_file(tmp_path, "s.jsonl")
    rows = [row | {"user_id": "x" + row["user_id"]} for row in logs.clicks(5, 5, 9, 50, "i")]
    logs.write_lines(tmp_path / "t.jsonl", rows)
    fails(tmp_path, "no user has clicks in both logs: check that --source_user_field")


def test_a_folder_is_no_log(tmp_path):
    lines_file(tmp_path, "t.jsonl")
    (tmp_path / "s.jsonl").mkdir()
    fails(tmp_path, r"--source_log=.*s.jsonl is a folder: give a pattern such as .*s.jsonl/\*")


def test_milliseconds(tmp_path):
    lines_file(tmp_path, "s.jsonl")
    rows = [r | {"timestamp": r["timestamp"] * 1000} for r in logs.clicks(5, 5, 9, 50, "i")]
    logs.write_lines(tmp_path / "t.jsonl", rows)
    fails(tmp_path, "53 of 53 lines of the target log.*timestamp in the far future.*: check "
          "--time_unit, which is s: times in milliseconds need --time_unit=ms")  # fmt: skip


def test_dates_in_words(tmp_path):
    lines_file(tmp_path, "s.jsonl")
    rows = [r | {"timestamp": "2020-09-13T12:00:00Z"} for r in logs.clicks(5, 5, 9, 50, "i")]
    logs.write_lines(tmp_path / "t.jsonl", rows)
    fails(tmp_path, "wrong type in timestamp: 53 .*: times are numbers since 1970 in --time_unit, "
          "or timestamps of Parquet: dates in words have to be brought to one of")  # fmt: skip


def test_a_log_of_1970_is_in_another_unit(tmp_path):
    times = line_counts.TimeHistogram.of(np.array([1_600_000, 1_610_000]))
    told = (r"^the target log is of 1970-01-19 to 1970-01-19, which no log is: check "
            r"formats.target.time_unit, which is ms, and that times count from 1970; "
            r"numbers that only order a user's clicks are time_unit=order$")  # fmt: skip
    with pytest.raises(InputError, match=told):
        preconditions.check_clock("target", times, LogFormat(time_unit="ms"))
    at_1990 = line_counts.TimeHistogram.of(np.array([5, 631_152_000]))
    preconditions.check_clock("target", at_1990, LogFormat())


def test_numbers_that_only_order_clicks(tmp_path, capsys):
    """Places of clicks, as public logs have them, are refused as times and taken as an order."""
    for name, first, prefix in (("s.jsonl", 0, "a"), ("t.jsonl", 1, "b")):
        rows = [
            {"user_id": f"u{user}", "item_id": f"{prefix}{(place + user) % 12}", "timestamp": place}
            for user in range(6)
            for place in range(first, 12, 2)
        ]
        logs.write_lines(tmp_path / name, rows)
    both = [f"--source_log={tmp_path / 's.jsonl'}", f"--target_log={tmp_path / 't.jsonl'}"]
    with pytest.raises(InputError, match=r"the source log is of 1970.*--time_unit=order$"):
        build(tmp_path / "out", *both, "--split=last")
    manifest = build(tmp_path / "out", *both, "--split=last", "--time_unit=order")
    # Of six target clicks a user the last tests and the one before validates.
    assert manifest.records["stage2"] == {"train": 24, "validation": 6, "test": 6}
    assert "1970" not in capsys.readouterr().out


def test_nothing_to_train_on(tmp_path):
    lines_file(tmp_path, "s.jsonl")
    lines_file(tmp_path, "t.jsonl")
    fails(tmp_path, r"of \d+ requests none is left to train on \(.* test.*\): check the cutoffs",
          "--train_until=1600000001", "--validation_until=1600000002")  # fmt: skip
    fails(tmp_path, r"filtered: source_history_too_short \d+\): lower --min_source_history=1000$",
          "--min_source_history=1000")  # fmt: skip
    logs.write_lines(
        tmp_path / "t.jsonl", [r | {"item_id": "i"} for r in logs.clicks(5, 5, 9, 9, "i")]
    )
    fails(tmp_path, r"no_negatives_left \d+\): their users have clicked every item: give logs of")


def test_impressions_without_a_click(tmp_path):
    lines_file(tmp_path, "s.jsonl")
    rows = [row | {"clicked": 0} for row in logs.clicks(5, 5, 9, 50, "i")]
    logs.write_lines(tmp_path / "t.jsonl", rows)
    fails(tmp_path, "no impression of the target log was clicked: check --label_field",
          "--label_field=clicked")  # fmt: skip


def test_damaged_gzip(tmp_path):
    lines_file(tmp_path, "t.jsonl")
    whole = gzip.compress(lines_file(tmp_path, "s.jsonl", 5000).read_bytes())
    for damaged in (whole[:-200], whole[:500] + b"junk" + whole[504:], b"not gzip at all"):
        (tmp_path / "s.jsonl.gz").write_bytes(damaged)
        fails(tmp_path, "s.jsonl.gz is cut off or damaged after byte",
              f"--source_log={tmp_path}/s.jsonl.gz")  # fmt: skip


def test_missing_columns(tmp_path):
    lines_file(tmp_path, "t.jsonl")
    (tmp_path / "s.csv").write_text("user_id,item\nu,i\n")
    fails(tmp_path, "s.csv has no column item_id: it has user_id, item: check --source_item_field "
          r"\(or --item_field\)",
          f"--source_log={tmp_path}/s.csv")  # fmt: skip
    pq.write_table(pa.table({"user_id": ["u"]}), tmp_path / "s.parquet")
    fails(tmp_path, "s.parquet has no column item_id: it has user_id: check --source_item_field",
          f"--source_log={tmp_path}/s.parquet")  # fmt: skip
    (tmp_path / "s.parquet").write_text("no")
    fails(tmp_path, "s.parquet is not a Parquet file", f"--source_log={tmp_path}/s.parquet")


def test_output_is_kept_unless_overwritten(by_time, folder, tmp_path):
    flags = logs.flags_of(folder)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(InputError, match=r"--output=.*out is there already and is no data set: g"):
        build(tmp_path / "out", *flags)
    with pytest.raises(InputError, match=r"--output=.*out is not a data set, and only one is over"):
        build(tmp_path / "out", "--overwrite", *flags)
    assert (tmp_path / "out" / "mine").read_text() == "precious"
    (tmp_path / "out" / "mine").unlink()
    first = build(tmp_path / "out", "--overwrite", *flags)
    with pytest.raises(InputError, match=r"--output=.*out is there already: give --overwrite"):
        build(tmp_path / "out", *flags)
    assert build(tmp_path / "out", "--overwrite", "--seed=1", *flags) != first
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_data_set_that_holds_its_logs_is_not_overwritten(tmp_path):
    staging.check_apart(f"{tmp_path}/out", [f"{tmp_path}/out-logs/a", "store://out/a"])
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for path in ("out/logs/a", "link/logs/a"):
        with pytest.raises(InputError, match=r"^output=\S*out holds \S*logs/a, which is to "):
            staging.check_apart(f"{tmp_path}/out", [f"{tmp_path}/{path}"])
    with pytest.raises(InputError, match=r"^output=store://out holds store://out/a, which is to "):
        staging.check_apart("store://out", ["store://out/a"])


def test_of_two_jobs_at_once_the_later_one_refuses(folder, tmp_path, monkeypatch):
    flags = logs.flags_of(folder)
    assemble = assembly.assemble

    def overtaken(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("precious")
        return assemble(*arguments)

    monkeypatch.setattr(assembly, "assemble", overtaken)
    with pytest.raises(InputError, match=r"--output=.*out is there already and is no data set: g"):
        build(tmp_path / "out", *flags)
    assert (tmp_path / "out" / "theirs").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--output=gs://bucket-of-mine/x"],
        ["--runner=DataflowRunner", "--project=a-project", "--region=us-east1",
         "--temp_location=gs://bucket-of-mine/x", "--output=gs://bucket-of-mine/y",
         "--source_log=gs://bucket-of-mine/s", "--target_log=gs://bucket-of-mine/t"],
    ],
)  # fmt: skip
def test_google_cloud_without_its_packages(folder, tmp_path, monkeypatch, flags):
    monkeypatch.setitem(sys.modules, "apache_beam.io.gcp.gcsfilesystem", None)
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    logs_of = logs.flags_of(folder)
    with pytest.raises(InputError, match=r"pip install 'apache-beam\[gcp\]'") as caught:
        build(tmp_path / "out", *logs_of, *flags)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_command_line_error_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.build_dataset", "--source_log=none",
         "--target_log=nothing", f"--output={tmp_path}/out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = [text for text in done.stderr.splitlines() if not text.startswith("WARNING")]
    assert line == "error: --source_log=none matches no file: check the path"


def test_an_error_within_the_pipeline_is_one_line_too(tmp_path):
    for name, user in (("s", "a"), ("t", "b")):
        event = {"user_id": user, "item_id": "x", "timestamp": 1_600_000_000}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(event) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.build_dataset", f"--source_log={tmp_path}/s.jsonl",
         f"--target_log={tmp_path}/t.jsonl", f"--output={tmp_path}/out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    [line] = [text for text in done.stderr.splitlines() if text and "WARNING" not in text]
    assert line == (
        "error: no user has clicks in both logs: check that --source_user_field and "
        "--target_user_field (or --user_field) name the same users"
    )


def test_item_files_that_do_not_belong_to_the_log(tmp_path):
    items = logs.write_lines(tmp_path / "items.jsonl", [{"item_id": f"x{i}"} for i in range(7)])
    flags = [*logs.two_logs(tmp_path), "--shards=2", f"--source_items={items}"]
    with pytest.raises(
        InputError,
        match=r"--source_items=.*items.jsonl describes none of the 48 items of the source log: "
        r"its 7 items are such as x0, those of the log such as s\d+: check --items_item_field, "
        "--source_item_field and that the files belong together",
    ):
        build_dataset.run([*flags, f"--output={tmp_path}/out"])
    assert not (tmp_path / "out").exists()


def test_the_summary_tells_how_many_items_are_described(tmp_path, capsys):
    few = logs.write_lines(tmp_path / "few.jsonl", [{"item_id": "s0"}, {"item_id": "s1"}])
    most = logs.write_lines(tmp_path / "most.jsonl", [{"item_id": f"t{i}"} for i in range(40)])
    build_dataset.run([*logs.two_logs(tmp_path), "--shards=2", f"--source_items={few}",
                       f"--target_items={most}", f"--output={tmp_path}/out"])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert "WARNING: only 2 of 48 source items are in the item files: check --source_items" in lines
    assert "39 of 39 target items are in the item files" in lines
    assert "  source: clicks of 2020-09-13 to 2020-10-22" in lines


def test_the_summary_tells_the_flag_that_leaves_out_many_requests(tmp_path, capsys):
    build_dataset.run([*logs.two_logs(tmp_path), "--shards=2", f"--output={tmp_path}/few"])
    assert "requests are left out" not in capsys.readouterr().out
    build_dataset.run([*logs.two_logs(tmp_path), "--shards=2", f"--output={tmp_path}/many",
                       "--min_source_history=5"])  # fmt: skip
    assert (
        "note: 165 of 399 target requests are left out for source histories shorter than "
        "--min_source_history=5; --min_source_history=0 keeps them" in capsys.readouterr().out
    )


def test_logs_in_two_units_of_time_are_refused(tmp_path):
    day = 86_400
    now = 1_600_000_000
    source = logs.write_lines(
        tmp_path / "s.jsonl",
        [
            {"user_id": f"u{i % 5}", "item_id": f"i{i}", "timestamp": now + i * day}
            for i in range(50)
        ],
    )
    target = logs.write_lines(
        tmp_path / "t.jsonl",
        [
            {"user_id": f"u{i % 5}", "item_id": f"j{i}", "timestamp": 1000 * (now + i * day)}
            for i in range(50)
        ],
    )
    with pytest.raises(
        InputError,
        match=r"source log is of 1970-01-19 to 1970-01-19, the target log of 2020-09-13 to .*unit",
    ):
        build(
            tmp_path / "out", f"--source_log={source}", f"--target_log={target}", "--time_unit=ms"
        )


def test_one_log_for_both_domains_is_refused(tmp_path):
    with pytest.raises(InputError, match="--source_log and --target_log are both x: name a log"):
        build(tmp_path / "out", "--source_log=x", "--target_log=x")
