"""The recipes of known logs, on lines as those logs have them."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

from pipelines import build_dataset, verify
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs


def reviews(seed, prefix, form):
    """Reviews of 2014 or 2018: one in five has a rating below 4."""
    rows = []
    for place, click in enumerate(logs.clicks(seed, 20, 40, 400, prefix)):
        row = {
            "reviewerID": click["user_id"].upper(),
            "asin": click["item_id"],
            "reviewText": 'He said "no, never" \\ and\tleft\nit',
            "overall": float(5 - place % 5 // 3 * 2),
            "unixReviewTime": click["timestamp"],
        }
        rows.append(row if form == 2014 else row | {"verified": True, "style": {"Size:": " L"}})
    return rows


def meta(prefix, form):
    for i in range(40):
        row = {"asin": f"{prefix}{i}", "title": f"It's title {i}", "brand": f"Brand {i % 3}"}
        if form == 2014:
            yield repr(row | {"categories": [["Books", f"Kind {i % 4}"], ["Other"]], "price": 5.0})
        else:
            yield json.dumps(row | {"category": ["Books", f"Kind {i % 4}", "More"]})


@pytest.mark.parametrize("form", [2014, 2018])
def test_amazon(tmp_path, form):
    flags = []
    for domain, prefix in (("source", "b"), ("target", "m")):
        logs.write_lines(tmp_path / f"{domain}.json.gz", reviews(ord(prefix), prefix, form))
        lines = "".join(f"{line}\n" for line in meta(prefix, form))
        (tmp_path / f"meta_{domain}.json.gz").write_bytes(gzip.compress(lines.encode()))
        flags += [f"--{domain}_log={tmp_path}/{domain}.json.gz",
                  f"--{domain}_items={tmp_path}/meta_{domain}.json.gz"]  # fmt: skip
    manifest = build_dataset.run(
        [*flags, f"--preset=amazon_{form}", f"--output={tmp_path}/out", "--shards=2"]
    )
    assert manifest.lines["source"]["filtered"]["rating_below_minimum"] == 160
    assert manifest.lines["source"]["rejected"] == {}
    assert manifest.options["min_source_history"] == 5
    assert manifest.max_history == 100
    sizes = {name: entry["size"] for name, entry in manifest.vocabularies.items()}
    assert (sizes["target.brand"], sizes["target.main_category"]) == (5, 3)
    assert sizes["target.second_category"] == 6
    assert sizes["target.leaf_category"] == (2 if form == 2014 else 3)
    table = pq.read_table(tmp_path / "out" / schema.item_table_path("target"))
    assert table["title"].to_pylist()[2].startswith("It's title")
    for split in schema.STAGE2_SPLITS:
        for record in logs.read_records(tmp_path / "out", "stage2", split):
            assert len(record["source_history"]) >= 5
    assert verify.Verifier(f"{tmp_path}/out").verify(with_logs=True).wrong == {}


def test_industrial(tmp_path):
    logs.write_lines(tmp_path / "shop.jsonl", logs.clicks(1, 6, 80, 400, "s"))
    for day in range(3):
        logs.write_lines(tmp_path / f"feed-{day}.jsonl", [
            row | {"request_id": f"{day}-{row['request_id']}"}
            for row in logs.impressions(day, 6, 60, 120)
        ])  # fmt: skip
    manifest = build_dataset.run([
        "--preset=industrial", f"--source_log={tmp_path}/shop.jsonl",
        f"--target_log={tmp_path}/feed-*.jsonl", f"--output={tmp_path}/out", "--shards=2",
    ])  # fmt: skip
    assert manifest.negatives["kind"] == "impressions"
    assert manifest.lines["requests"]["filtered"]["target_history_too_short"] > 0
    for split in schema.STAGE2_SPLITS:
        for record in logs.read_records(tmp_path / "out", "stage2", split):
            assert min(len(record["source_history"]), len(record["target_history"])) > 10
            assert len(record["candidates"]) == 4


def test_a_flag_goes_before_its_preset(tmp_path):
    job = build_dataset.job_of([
        "--preset=amazon_2014", "--min_source_history=2", "--source_log=a", "--target_log=b",
        "--output=c",
    ])  # fmt: skip
    assert job.min_source_history == 2
    assert job.formats["source"].item == "asin"
    plain = build_dataset.job_of(["--source_log=a", "--target_log=b", "--output=c"])
    assert plain.formats["source"].item == "item_id"  # the preset does not linger


def test_unknown_preset():
    with pytest.raises(InputError, match="--preset=amazn is not one of: amazon_2014"):
        build_dataset.job_of(["--preset=amazn"])
