"""Every kind of violation is planted once, and found."""

import hashlib
import json
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines import build_dataset, manifest_entries, verify
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.commands import run_main
from tests.pipelines import two_logs as logs


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Data sets by kind of split, of impressions of either domain, and one with rare items."""
    folder = tmp_path_factory.mktemp("built")
    flags = [*logs.two_logs(folder), "--shards=2", "--max_history=5", "--negatives=3",
             "--source_requests"]  # fmt: skip
    build_dataset.run([*flags, f"--output={folder}/time"])
    build_dataset.run([*flags, "--split=last", "--click_times", f"--output={folder}/last"])
    build_dataset.run([*flags, "--split=last", "--min_item_count=10", f"--output={folder}/rare"])
    shown = [  # users' ids of requests are given again and again
        row | {"request_id": f"r{int(row['request_id'][1:]) % 10}"}
        for row in logs.impressions(3, 30, 30, 150)
    ]
    clicked = [row | {"timestamp": row["timestamp"] + 9} for row in shown if row["clicked"]]
    shown = [row | {"clicked": 0} for row in shown]  # the click is a line of its own
    logs.write_lines(folder / "shown.jsonl", shown + clicked)
    build_dataset.run([
        *flags, f"--target_log={folder}/shown.jsonl", "--label_field=clicked",
        "--request_field=request_id", f"--output={folder}/shown",
    ])  # fmt: skip
    logs.write_lines(folder / "source_shown.jsonl", logs.impressions(4, 30, 30, 150, "s"))
    build_dataset.run([
        *flags, f"--source_log={folder}/source_shown.jsonl", "--source_label_field=clicked",
        f"--output={folder}/source_shown",
    ])  # fmt: skip
    return folder


@pytest.fixture
def copy(built, tmp_path):
    def make(kind):
        shutil.copytree(built / kind, tmp_path / kind)
        return tmp_path / kind

    return make


def verified(data_dir, *, with_logs=True):
    return verify.Verifier(str(data_dir)).verify(with_logs=with_logs)


def edit_record(data_dir, stage, split, edit, *, chosen=lambda example: True):
    """Changes the first chosen record of a split and mends the checksums."""
    for path in sorted(data_dir.glob(schema.shard_glob(stage, split))):
        examples = [
            tf.train.Example.FromString(raw)
            for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        ]
        for example in examples:
            if chosen(example):
                edit({name: _values(f) for name, f in example.features.feature.items()})
                break
        else:
            continue
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example.SerializeToString())
        mend(data_dir)
        return
    raise AssertionError("no record was chosen")


def _values(feature):
    return getattr(feature, feature.WhichOneof("kind")).value if feature.WhichOneof("kind") else []


def mend(data_dir):
    """Makes checksums and their hash what the files are, as a careful forger would."""
    checksums = json.loads((data_dir / schema.CHECKSUMS_FILE).read_text())
    for name in checksums:
        checksums[name] = hashlib.sha256((data_dir / name).read_bytes()).hexdigest()
    (data_dir / schema.CHECKSUMS_FILE).write_text(json.dumps(checksums))
    manifest = json.loads((data_dir / schema.MANIFEST_FILE).read_text())
    manifest["dataset_hash"] = manifest_entries.dataset_hash(checksums)
    (data_dir / schema.MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("kind", "with_logs"),
    [("time", False), *((k, True) for k in ("time", "last", "rare", "shown", "source_shown"))],
)
def test_a_data_set_as_built_is_fine(built, kind, with_logs):
    findings = verified(built / kind, with_logs=with_logs)
    assert findings.wrong == {}
    assert sum(findings.looked_at.values()) > 1000


def test_clicks_that_are_lines_of_their_own_are_counted(built):
    told = schema.read_manifest(built / "shown").lines["target"]
    lines = [json.loads(line) for line in (built / "shown.jsonl").read_text().splitlines()]
    assert told["merged"] == sum(line["clicked"] for line in lines)
    records = [
        r for s in schema.STAGE2_SPLITS for r in logs.read_records(built / "shown", "stage2", s)
    ]
    assert {len(r["candidates"]) for r in records} == {4}


def _set(name, place, value):
    def edit(record):
        record[name][place] = value

    return edit


def long_enough(example):
    return len(example.features.feature["target_history"].int64_list.value) > 1


def _plant_click(candidates, history):
    """A negative becomes an item of the user's own history."""

    def edit(record):
        record[candidates][list(record["labels"]).index(0)] = record[history][0]

    return edit


def _other_click(record):
    """Another candidate is said to be the click."""
    labels = list(record["labels"])
    record["labels"][labels.index(1)], record["labels"][labels.index(0)] = 0, 1


PLANTED = [
    ("time", "stage2", "train", _set("history_time", 0, 1 << 33),
     "histories precede their request or cutoff"),
    ("time", "stage2", "train", _set("history_time", 0, 5), "history time is the newest click's"),
    ("time", "stage2", "train", _set("request_time", 0, 4_000_000_000),
     "splits don't cross in time"),
    ("time", "stage2", "test", _set("request_time", 0, 1_600_000_000 + 86_400),
     "splits don't cross in time"),
    ("time", "stage2", "train", _set("target_history", 0, 3),
     "histories are the log's clicks before the time"),
    ("time", "stage2", "train", _set("source_history", 0, 9999), "ids are in their vocabulary"),
    ("time", "stage2", "train", _set("candidates", 0, 0), "ids are in their vocabulary"),
    ("time", "stage2", "train", lambda r: r["labels"].append(0), "each candidate has a label"),
    ("time", "stage2", "train", _set("labels", 0, 2), "each candidate has a label"),
    ("time", "stage2", "train", lambda r: r["candidates"].__setitem__(0, r["candidates"][1]),
     "no candidate is there twice"),
    ("time", "stage2", "train", _plant_click("candidates", "target_history"),
     "no negative is a click of the user"),
    ("time", "stage2", "train", lambda r: r["target_history"].extend([2] * 9),
     "histories are no longer than the manifest says"),
    ("time", "stage1", "train", _set("cutoff_time", 0, 4_000_000_000),
     "stage 1 saw nothing past the training cutoff"),
    ("time", "stage1", "train", _set("user_id", 0, b"nobody"),
     "histories are the log's clicks before the time"),
    ("last", "stage2", "validation", _set("request_time", 0, 1_700_000_000),
     "splits don't cross in time"),
    ("last", "stage1", "train", _set("cutoff_time", 0, 4_000_000_000),
     "stage 1 saw nothing past the training cutoff"),
    ("time", "source_requests", "train", _set("request_time", 0, 4_000_000_000),
     "source requests are split where the target's are"),
    ("last", "source_requests", "validation", _set("request_time", 0, 1_600_000_000),
     "source requests are split where the target's are"),
    ("time", "source_requests", "train", _set("source_history", 0, 3),
     "histories are the log's clicks before the time"),
    ("time", "source_requests", "train", _set("source_candidates", 0, 9999),
     "ids are in their vocabulary"),
    ("time", "source_requests", "train",
     lambda r: r["source_candidates"].__setitem__(0, r["source_candidates"][1]),
     "no candidate is there twice"),
    ("time", "source_requests", "train", _plant_click("source_candidates", "source_history"),
     "no negative is a click of the user"),
    ("time", "source_requests", "validation", _other_click,
     "records are requests of the log, each once"),
    ("last", "stage2", "train", lambda r: r["target_times"].pop(),
     "each click of a history has a time"),
    ("last", "stage2", "train", _set("target_times", 0, 4_000_000_000),
     "times of clicks precede their request or cutoff"),
    ("last", "stage1", "train", _set("target_times", -1, 1), "times of clicks are in order"),
    ("last", "stage1", "train",
     lambda r: r["target_times"].__setitem__(0, r["target_times"][0] - 1),
     "times of clicks are the log's"),
    ("last", "source_requests", "train", _set("history_time", 0, 5),
     "history time is the newest of the clicks' times"),
    ("shown", "stage2", "train", lambda r: r["labels"].__setitem__(0, 1 - r["labels"][0]),
     "candidates were shown to the user"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "stage", "split", "edit", "what"), PLANTED)
def test_a_planted_record_is_found(copy, kind, stage, split, edit, what):
    data_dir = copy(kind)
    edit_record(data_dir, stage, split, edit, chosen=long_enough)
    assert what in verified(data_dir).wrong


def test_positive_that_was_not_clicked(copy):
    data_dir = copy("time")
    edit_record(data_dir, "stage2", "test", _other_click)
    wrong = verified(data_dir).wrong
    assert "positives are clicks at the request's time" in wrong


def test_a_future_item_in_the_vocabulary(copy):
    data_dir = copy("time")
    manifest = json.loads((data_dir / "manifest.json").read_text())
    # the cutoff is said to be earlier than the one that counts were made with
    manifest["split"]["train_until"] -= 20 * 86_400
    (data_dir / "manifest.json").write_text(json.dumps(manifest))
    wrong = verified(data_dir).wrong
    assert "popularity comes from the training period" in wrong
    assert "vocabularies come from the training period" in wrong
    assert "stage 1 saw nothing past the training cutoff" in wrong


def test_popularity_of_the_whole_log(copy):
    data_dir = copy("time")
    path = data_dir / schema.item_table_path("target")
    table = pq.read_table(path)
    counts = table["count"].to_pylist()
    counts[2] += 1
    place = table.column_names.index("count")
    pq.write_table(table.set_column(place, "count", pa.array(counts)), path)
    mend(data_dir)
    assert "popularity comes from the training period" in verified(data_dir).wrong


def test_damaged_files(copy):
    data_dir = copy("time")
    path = next(data_dir.glob(schema.shard_glob("stage2", "train")))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    wrong = verified(data_dir).wrong
    assert "file has its checksum" in wrong
    assert "shard is whole" in wrong


def test_a_record_less(copy):
    data_dir = copy("time")
    path = next(data_dir.glob(schema.shard_glob("stage2", "train")))
    raws = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())[1:]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for raw in raws:
            writer.write(raw)
    mend(data_dir)
    assert "shard is whole" in verified(data_dir, with_logs=False).wrong


def edit_records(data_dir, stage, split, edit):
    """Changes the list of records of a split's first shard, and all that counts or sums it."""
    path = min(data_dir.glob(schema.shard_glob(stage, split)))
    name = str(path.relative_to(data_dir))
    raws = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    before = len(raws)
    edit(raws)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for raw in raws:
            writer.write(raw)
    change_manifest(data_dir, lambda m: m["shards"].update({name: len(raws)}))
    change_manifest(
        data_dir, lambda m: m["records"][stage].update({split: m["records"][stage][split]
                                                        + len(raws) - before}))  # fmt: skip
    mend(data_dir)


def change_manifest(data_dir, change):
    manifest = json.loads((data_dir / schema.MANIFEST_FILE).read_text())
    change(manifest)
    (data_dir / schema.MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["time", "last", "shown"])
def test_records_doubled_and_lost(copy, kind):
    data_dir = copy(kind)
    edit_records(data_dir, "stage2", "train", lambda raws: raws.append(raws[0]))
    wrong = verified(data_dir).wrong
    assert "records are requests of the log, each once" in wrong
    assert ("no request is there twice" in wrong) == (kind != "shown")
    edit_records(data_dir, "stage2", "train", lambda raws: raws.pop())
    edit_records(data_dir, "stage2", "test", lambda raws: raws.pop())
    edit_records(data_dir, "stage1", "train", lambda raws: raws.pop())
    wrong = verified(data_dir).wrong
    assert "requests of the log are records" in wrong
    assert "records are requests of the log, each once" not in wrong
    assert "stage 1 has the users with both histories" in wrong


def test_a_record_in_another_users_shard(copy):
    data_dir = copy("time")
    first, second = sorted(data_dir.glob(schema.shard_glob("stage2", "test")))
    raws = list(tf.data.TFRecordDataset(str(second)).as_numpy_iterator())
    edit_records(data_dir, "stage2", "test", lambda found: found.append(raws[0]))
    wrong = verified(data_dir, with_logs=False).wrong
    name = str(first.relative_to(data_dir))
    assert wrong["a user's records are in one shard"] == [
        f"{name} record {json.loads((data_dir / 'manifest.json').read_text())['shards'][name] - 1}"
    ]


def test_a_record_that_is_none(copy):
    data_dir = copy("time")
    edit_records(data_dir, "stage2", "train", lambda raws: raws.append(b"\xff"))
    edit_records(data_dir, "stage1", "train", lambda raws: raws.append(b""))
    wrong = verified(data_dir).wrong
    assert [text.split(": ")[1] for text in wrong["shard is whole"]] == [
        "a record is no Example of stage2", "a record is no Example of stage1"
    ]  # fmt: skip


def test_many_wrong_things_are_counted_and_a_few_shown(copy):
    data_dir = copy("time")
    change_manifest(data_dir, lambda m: m["split"].update(train_until=5))
    findings = verified(data_dir, with_logs=False)
    what = "stage 1 saw nothing past the training cutoff"
    assert findings.wrong_things[what] == findings.looked_at[what] > 10
    assert len(findings.wrong[what]) == 5
    assert f"and {findings.wrong_things[what] - 5:,} more" in findings.table()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.update(max_history=9), "manifest agrees with its options"),
        (lambda m: m["options"].update(click_times=True), "manifest agrees with its options"),
        (lambda m: m["negatives"].update(per_click=2), "manifest agrees with its options"),
        (lambda m: m["split"].update(kind="last"), "manifest agrees with its options"),
        (lambda m: m["records"].pop("source_requests"), "manifest agrees with its options"),
        (lambda m: m["records"]["source_requests"].update(train=1),
         "manifest agrees with its options"),
        (lambda m: m["lines"]["source"].update(total=1), "lines are as many as the manifest says"),
        (lambda m: m["lines"]["target"].update(rejected={"x": 1}),
         "lines are as many as the manifest says"),
        (lambda m: m["lines"].pop("requests"), "manifest can be read"),
        (lambda m: m.update(vocabularies={}), "vocabularies and item tables can be read"),
    ],
)  # fmt: skip
def test_a_manifest_that_says_something_else(copy, change, what):
    data_dir = copy("time")
    change_manifest(data_dir, change)
    assert what in verified(data_dir).wrong


def test_files_that_are_missing_or_damaged(copy):
    data_dir = copy("time")
    (data_dir / schema.vocabulary_path("target", "item")).unlink()
    (data_dir / schema.CHECKSUMS_FILE).write_text("[")
    wrong = verified(data_dir).wrong
    assert "vocabularies and item tables can be read" in wrong
    assert "checksums.json can be read" in wrong
    change_manifest(data_dir, lambda m: m["options"].update(colour=1))
    with pytest.raises(InputError, match=r"the options in .*manifest.json are damaged .*colour"):
        verified(data_dir)


def test_a_log_that_is_gone_is_named_and_so_is_the_way_without_it(copy):
    data_dir = copy("time")
    change_manifest(data_dir, lambda m: m["inputs"][0].update(path="nowhere.jsonl"))
    told = r"^what .*manifest.json names .* again: nowhere.jsonl is not there: give logs=False to"
    with pytest.raises(InputError, match=told):
        verified(data_dir)


def test_a_shard_less_and_a_shard_more(copy):
    data_dir = copy("time")
    first = min(data_dir.glob(schema.shard_glob("stage2", "train")))
    first.rename(first.with_name(first.name.replace("00000-of", "00009-of")))
    wrong = verified(data_dir, with_logs=False).wrong
    assert "shards are those of the manifest" in wrong


def test_command(built):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.verify", f"--data_dir={built}/time"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok     histories precede their request or cutoff" in done.stdout
    assert done.stdout.endswith("the data set is whole and nothing leaked into it\n")


def test_without_the_logs_it_says_so(built, capsys):
    assert run_main(verify, f"--data_dir={built}/time", "--nologs") == 0
    assert capsys.readouterr().out.endswith(
        "nothing leaked into it, by its files alone: the logs were not read\n"
    )
