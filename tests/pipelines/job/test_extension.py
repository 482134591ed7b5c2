"""Day by day equals all at once, and ids never move."""

import collections
import dataclasses
import itertools
import shutil

import pytest

from pipelines import build_dataset, verify
from pipelines.job import extension, inputs
from pipelines.logs import line_blocks
from pipelines.options import Job
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs

DAY = 86_400
BEGIN = 1_600_000_000
FLAGS = ["--shards=3", "--max_history=6", "--negatives=3", "--title_word_min_count=1",
         "--source_requests", "--click_times"]  # fmt: skip


def days(rows, *bounds):
    """Rows by day ranges, and all of them."""
    edges = [0, *bounds, 99]
    return [
        [r for r in rows if low <= (r["timestamp"] - BEGIN) // DAY < high]
        for low, high in itertools.pairwise(edges)
    ] + [rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("days")
    for domain, seed in (("source", 1), ("target", 2)):
        rows = logs.clicks(seed, 30, 60, 500, domain[0])
        in_ms = [r | {"timestamp": r["timestamp"] * 1000} for r in days(rows, 20, 30)[1]]
        if domain == "source":
            logs.write_lines(path / "source-2.jsonl", in_ms)
        else:  # a name that read as a pattern would be two
            lines = ["who,what,when", *(",".join(map(str, r.values())) for r in in_ms)]
            (path / "target-2,x.csv").write_text("\n".join(lines))
        for name, part in zip(("1", "2", "3", "all"), days(rows, 20, 30), strict=True):
            if name != "2":
                logs.write_lines(path / f"{domain}-{name}.jsonl", part)
            seen = sorted({row["item_id"] for row in part})
            logs.write_lines(
                path / f"{domain}-items-{name}.jsonl",
                [{"item_id": i, "title": f"word{i[-1]} thing", "brand": f"b{i[-1]}"} for i in seen],
            )
    return path


OF_DAY_2 = ["--target_user_field=who", "--target_item_field=what", "--target_time_field=when",
            "--time_unit=ms"]  # fmt: skip
"""The second day's logs are in milliseconds, and its target log is CSV of other names."""


def build(folder, name, output, *flags):
    return build_dataset.run([
        f"--source_log={folder}/source-{name}.jsonl", f"--target_log={folder}/target-{name}?*",
        f"--source_items={folder}/source-items-{name}.jsonl",
        f"--target_items={folder}/target-items-{name}.jsonl",
        f"--output={output}", *FLAGS, *flags,
    ])  # fmt: skip


def contents(data_dir):
    """Everything in the records, with raw items for ids, as a multiset."""
    found = collections.Counter()
    for stage, splits in schema.SPLITS.items():
        for split in splits:
            for record in logs.read_records(data_dir, stage, split):
                found[stage, split, str(sorted(record.items()))] += 1
    return found


@pytest.fixture(scope="module", params=["time", pytest.param("last", marks=pytest.mark.slow)])
def chain(request, folder, tmp_path_factory):
    """Three days one by one, and all at once."""
    out = tmp_path_factory.mktemp("out")
    split = f"--split={request.param}"
    manifests = [build(folder, "1", out / "d1", split, "--keep_events")]
    manifests.append(build(folder, "2", out / "d2", split, f"--extends={out}/d1",
                           "--shuffle=beam", *OF_DAY_2))  # fmt: skip
    manifests.append(build(folder, "3", out / "d3", split, f"--extends={out}/d2"))
    manifests.append(build(folder, "all", out / "all", split))
    return out, manifests


def test_day_by_day_equals_all_at_once(chain):
    out, manifests = chain
    assert contents(out / "d3") == contents(out / "all")
    assert manifests[2].split == manifests[3].split
    assert manifests[2].records == manifests[3].records


def test_ids_never_move(chain):
    out, manifests = chain
    for name in manifests[0].vocabularies:
        tokens = [
            (out / day / schema.vocabulary_path(*name.split("."))).read_text().split("\n")[:-1]
            for day in ("d1", "d2", "d3", "all")
        ]
        assert tokens[1][: len(tokens[0])] == tokens[0]
        assert tokens[2][: len(tokens[1])] == tokens[1]
        assert sorted(tokens[2]) == sorted(tokens[3]), name
    assert manifests[2].vocabularies["target.item"]["size"] > (
        manifests[0].vocabularies["target.item"]["size"])  # fmt: skip


def test_the_manifest_chains(chain):
    out, manifests = chain
    parents = [e for e in manifests[2].inputs if e["kind"] == extension.DATA_SET]
    assert [e["path"] for e in parents] == [str(out / "d2"), str(out / "d1")]
    assert [e["dataset_hash"] for e in parents] == [
        manifests[1].dataset_hash, manifests[0].dataset_hash]  # fmt: skip
    logs_read = {e["path"].split("/")[-1] for e in manifests[2].inputs if e["kind"] == "log"}
    assert len(logs_read) == 6
    carried = manifests[2].lines["source"]["carried"]
    assert carried == manifests[1].lines["source"]["used"]


def test_paths_in_the_manifest_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unit = line_blocks.Unit("a.csv", 0, "csv", False, 0, 9, file_bytes=9)
    job = Job({}, "out")
    [log] = inputs.describe([inputs.Input("source", "log", unit)], job)
    assert (log.path, log.file_format) == (f"{tmp_path}/a.csv", "csv")
    assert (log.log, log.items) == (job.formats["source"], None)
    unit = dataclasses.replace(unit, path="store://a")
    [items] = inputs.describe([inputs.Input("source", "items", unit)], job)
    assert (items.path, items.log, items.items) == ("store://a", None, job.item_fields)


def test_an_extended_data_set_verifies(chain):
    out, _ = chain
    assert verify.Verifier(str(out / "d3")).verify(with_logs=True).wrong == {}


def test_a_day_with_one_log_only(chain, folder, tmp_path):
    out, manifests = chain
    manifest = build_dataset.run([
        f"--source_log={folder}/source-2.jsonl", f"--extends={out}/d1", "--time_unit=ms",
        f"--split={manifests[0].split['kind']}", f"--output={tmp_path}/out", *FLAGS,
    ])  # fmt: skip
    assert manifest.lines["target"]["total"] == manifest.lines["target"]["carried"]


def test_what_cannot_be_extended(chain, folder, tmp_path):
    out, manifests = chain
    split = f"--split={manifests[0].split['kind']}"
    with pytest.raises(InputError, match="keeps no events: build it with --keep_events"):
        build(folder, "2", tmp_path / "out", split, f"--extends={out}/all")
    with pytest.raises(InputError, match="--shards=5 differs from 3, which --extends="):
        build(folder, "2", tmp_path / "out", split, f"--extends={out}/d1", "--shards=5")
    with pytest.raises(InputError, match="--label_field is given for only one of this job"):
        build(folder, "2", tmp_path / "out", split, f"--extends={out}/d1", "--label_field=c")
    with pytest.raises(InputError, match="is not a directory"):
        build(folder, "2", tmp_path / "out", split, "--extends=nowhere")


def test_damaged_events_are_named_by_verification_and_by_the_next_day(chain, folder, tmp_path):
    out, manifests = chain
    shutil.copytree(out / "d1", tmp_path / "d1")
    events = tmp_path / "d1" / "events"
    job = Job({}, "out", shards=3, seed=0, split=manifests[0].split["kind"],
              extends=str(tmp_path / "d1"))  # fmt: skip
    [part] = [p for n, p in extension.load(job).events if (n, p.domain) == (1, "source")]
    assert part.read().num_rows == part.rows
    for name, read in (
        ("source-00001.arrow", part.read),
        ("target-items.arrow", lambda: extension.load(job)),
        ("parts.json", lambda: extension.load(job)),
    ):
        whole = (events / name).read_bytes()
        (events / name).write_bytes(whole.replace(b"3", b"4"))
        with pytest.raises(
            InputError, match=rf"^\S+{name} is damaged: it has not its checksum: bri"
        ):
            read()
        found = verify.Verifier(str(tmp_path / "d1")).verify(with_logs=False).wrong
        assert list(found) == ["kept events have their checksums"]
        (events / name).unlink()
        if name != "parts.json":
            with pytest.raises(
                InputError, match=rf"^\S+{name} is missing: bring it back as it was"
            ):
                read()
        (events / name).write_bytes(whole)
