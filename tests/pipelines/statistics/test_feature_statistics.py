"""Statistics against plain counts over the records, and the page."""

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipelines import build_dataset, facts
from pipelines.job import assembly, build_records
from pipelines.statistics import charts, feature_statistics
from pipelines.statistics.feature_statistics import Numbers
from sitn_tf import schema
from tests.pipelines import two_logs as logs


@pytest.fixture(scope="module", autouse=True)
def pictures_left_out():
    """Here they are drawn."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    logs.write_lines(folder / "source.jsonl", logs.clicks(1, 30, 50, 400, "s"))
    logs.write_lines(folder / "target.jsonl", logs.impressions(3, 30, 30, 150))
    build_dataset.run([
        f"--source_log={folder}/source.jsonl", f"--target_log={folder}/target.jsonl",
        "--label_field=clicked", "--request_field=request_id", "--score_field=score",
        "--source_requests", "--click_times", "--shards=3", "--max_history=5",
        f"--output={folder}/out",
    ])  # fmt: skip
    return folder / "out"


@pytest.fixture(scope="module")
def listed(built):
    found = statistics_pb2.DatasetFeatureStatisticsList()
    found.ParseFromString((built / "statistics.pb").read_bytes())
    return {dataset.name: dataset for dataset in found.datasets}


@pytest.mark.parametrize(("stage", "split"), [("stage1", "train"), ("stage2", "test")])
def test_against_the_records(built, listed, stage, split):
    records = logs.read_records(built, stage, split)
    dataset = listed[f"{stage}/{split}"]
    assert dataset.num_examples == len(records)
    features = {feature.path.step[0]: feature for feature in dataset.features}
    assert set(features) == {f.name for f in schema.features_of(stage, click_times=True)}
    for name in ("source_history", "target_history"):
        lengths = [len(record[name]) for record in records]
        common = features[name].num_stats.common_stats
        assert common.num_missing == lengths.count(0)
        assert (common.min_num_values, common.max_num_values) == (min(lengths), max(lengths))
        assert common.tot_num_values == sum(lengths)
        counted = {b.low_value: b.sample_count for b in common.num_values_histogram.buckets}
        assert counted == Counter(lengths)
        [histogram] = features[name].num_stats.histograms
        assert sum(b.sample_count for b in histogram.buckets) == sum(lengths)
    for name in ("source_times", "target_times"):
        numbers = features[name].num_stats
        values = [time for record in records for time in record[name]]
        assert numbers.common_stats.tot_num_values == len(values)
        assert (numbers.min, numbers.max) == (min(values), max(values))
        assert numbers.mean == pytest.approx(np.mean(values))
    time = "cutoff_time" if stage == "stage1" else "request_time"
    values = [record[time] for record in records]
    numbers = features[time].num_stats
    assert (numbers.min, numbers.max) == (min(values), max(values))
    assert numbers.mean == pytest.approx(np.mean(values))
    if stage == "stage2":
        labels = [label for record in records for label in record["labels"]]
        assert features["labels"].num_stats.mean == pytest.approx(np.mean(labels))
        assert features["labels"].num_stats.num_zeros == labels.count(0)
        scores = [score for record in records for score in record["logged_scores"]]
        assert features["logged_scores"].num_stats.mean == pytest.approx(np.mean(scores))


def test_ids_of_histories_are_counted_as_often_as_they_occur(built, listed):
    names = {"?": 1}
    tokens = (built / schema.vocabulary_path("source", "item")).read_text().split()
    names |= {token: i + 2 for i, token in enumerate(tokens)}
    ids = [
        names[item]
        for record in logs.read_records(built, "stage2", "train")
        for item in record["source_history"]
    ]
    [feature] = [f for f in listed["stage2/train"].features if f.path.step[0] == "source_history"]
    assert feature.num_stats.mean == pytest.approx(np.mean(ids))
    assert feature.num_stats.std_dev == pytest.approx(np.std(ids))
    assert (feature.num_stats.min, feature.num_stats.max) == (min(ids), max(ids))


def test_a_shard_passes_on_the_name_of_its_statistics_only(tmp_path, monkeypatch):
    """Those of many shards together would be the job's peak of memory."""
    summaries = []
    assemble = assembly.assemble

    def looked_at(work, *rest):
        summaries.append(build_records.read_summary(work))
        return assemble(work, *rest)

    monkeypatch.setattr(assembly, "assemble", looked_at)
    build_dataset.run([*logs.two_logs(tmp_path), "--shards=2", f"--output={tmp_path}/out"])
    [summary] = summaries
    assert len(summary.groups) == 2
    assert all(len(json.dumps(facts.to_json(group))) < 3000 for group in summary.groups)


def test_json_says_the_same(built, listed):
    parsed = json_format.Parse(
        (built / "statistics.json").read_text(), statistics_pb2.DatasetFeatureStatisticsList()
    )
    assert {d.name: d for d in parsed.datasets} == listed


def test_page_is_well_formed_and_self_contained(built):
    text = (built / "statistics.html").read_text()
    pictures = [part.split("</svg>")[0] for part in text.split("<svg")[1:]]
    assert len(pictures) == 15
    for picture in pictures:
        ET.fromstring(f"<svg{picture}</svg>")
    assert "http:" not in text
    assert "https:" not in text
    assert text.count("nothing to show") == 0
    assert "source_history_too_short" in text
    counts = schema.read_manifest(built).records["source_requests"]
    for split in (schema.TRAIN, schema.VALIDATION):
        assert re.search(rf"source_requests, {split}</th>\s*<td[^>]*>{counts[split]:,}<", text)


numbers = st.lists(st.integers(0, 1 << 20), max_size=20)


@given(numbers, numbers)
def test_merged_is_of_both(one, two):
    def of(values):
        return Numbers.of("candidates", np.array(values, np.int64))

    merged, both = of(one).merge(of(two)), of(one + two)
    assert merged == both
    if one + two:
        assert both.mean == pytest.approx(np.mean(one + two))
        assert both.unknown == (one + two).count(1)


def test_quantiles_of_small_integers_are_exact():
    found = Numbers.of("labels", np.array([0, 0, 1, 5]))
    assert [found.quantile("labels", share) for share in (0.5, 0.75, 1.0)] == [0, 1, 5]


def test_popularity_curve():
    assert feature_statistics.popularity_curve(np.array([1, 5, 2, 0, 0])) == [
        [1, 5, 0.625], [2, 2, 0.875], [4, 0, 1.0], [5, 0, 1.0]]  # fmt: skip
    assert feature_statistics.popularity_curve(np.array([])) == []


def test_labels_of_axes():
    assert [charts.power_name(p) for p in (1, 2, 3, 12)] == ["1", "2–3", "4–7", "2.05k–4.09k"]


@pytest.mark.parametrize("kind", ["number", "day", "power"])
@pytest.mark.parametrize("places", [[5], [0, 1], list(range(1, 41)), list(range(1, 60, 7)),
                                    [18_000, 19_000]])  # fmt: skip
def test_labels_neither_overlap_nor_leave_the_picture(kind, places):
    if kind == "power" and places[-1] > 50:
        pytest.skip("no numbers of so many digits")
    values = [(max(1, place), 7.0) for place in places]
    picture = charts.bars("title", values, "#000", "below", "beside", kind)
    svg = ET.fromstring(picture.svg)
    texts = [t for t in svg.iter("text") if "middle" in t.get("style")]
    height, width = float(svg.get("height")), float(svg.get("width"))
    labels = [t for t in texts if height - 50 < float(t.get("y")) < height - 15]
    assert labels
    ends = [
        (float(t.get("x")) - 3 * len(t.text), float(t.get("x")) + 3 * len(t.text)) for t in labels
    ]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert ends[0][0] >= 0
    assert ends[-1][1] <= width
    assert {"below", "beside"} <= {t.text.split(",")[0] for t in svg.iter("text")}


def test_a_picture_is_the_same_each_time_and_takes_the_colour_of_the_page():
    """No dates or random ids: a data set built twice has the same page."""
    one, two = (charts.bars("a < b", [(1, 2.0), (3, 4.0)], "#123456", "x", "y") for _ in "12")
    assert one == two
    svg = ET.fromstring(one.svg)
    assert svg.get("aria-label") == "a < b"
    assert svg.get("fill") == "currentColor"
    assert "#000000" not in one.svg
    assert not [g for g in svg.iter("g") if g.get("id")]
    assert [t.text for t in svg.iter("title")] == ["1: 2", "3: 4"]


def test_nothing_to_show():
    assert charts.bars("title", [], "#000", "below", "beside") == ("title", "")


@pytest.mark.parametrize("far", [0, 1 << 40])  # counted in an array, and by sorting
def test_numbers_are_those_of_a_loop(far):
    values, weights = np.array([5, 3, 5, 0, 2, 5 + far]), np.array([1, 2, 0, 4, 1, 1])
    for counted in (None, weights):
        times = np.ones(len(values), int) if counted is None else counted
        each = [v for v, n in zip(values.tolist(), times.tolist(), strict=True) for _ in range(n)]
        found = Numbers.of("labels", values, counted)
        assert found.buckets == Counter(each)
        assert (found.count, found.total, found.zeros) == (len(each), sum(each), each.count(0))
        assert (found.low, found.high) == (min(each), max(each))
