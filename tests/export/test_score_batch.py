"""Batch scoring in Beam: the served scores, row by row."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from apache_beam.testing import test_pipeline

from export import score_batch, signatures, version_files
from sitn_tf import beam_runner, cli, runs, schema
from sitn_tf.errors import InputError
from tests.small_dataset import example


def read(folder, prefix):
    rows = []
    for path in sorted(folder.glob(f"{prefix}-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return {row["user_id"]: row for row in rows}


def test_batch_scores_equal_served_ones(servable, run_dir, session, tmp_path):
    data_dir = runs.read_info(run_dir).data_dir
    pattern = f"{data_dir}/{schema.shard_glob(schema.STAGE2, schema.TEST)}"
    with test_pipeline.TestPipeline(runner=beam_runner.LOCAL) as pipeline:
        score_batch.build(pipeline, str(servable / "1"), pattern, str(tmp_path / "scores"), batch=7)
    found = read(tmp_path, "scores")
    records = list(tf.data.TFRecordDataset(tf.io.gfile.glob(pattern)).as_numpy_iterator())
    assert len(found) == len(records)
    served = session.run(signatures.SERVING_DEFAULT, {"examples": records})["ctr"]
    for serialized, scores in zip(records, served, strict=True):
        features = tf.train.Example.FromString(serialized).features.feature
        row = found[features["user_id"].bytes_list.value[0]]
        ids = features["candidates"].int64_list.value
        assert row["item"] == [f"t{i}" for i in ids]
        assert row["request_time"] == 1000
        np.testing.assert_allclose(row["ctr"], scores[: len(ids)], atol=1e-6)


def test_rows_without_candidates_and_with_unknown_items(servable):
    rows = [
        {"user_id": b"a", "request_time": 1, "candidates": []},
        {"user_id": b"b", "request_time": 2, "candidates": [2, 1, 10**6]},
    ]
    handler = score_batch.ServableHandler(str(servable / "1"))
    made = list(handler.run_inference([example(r) for r in rows], handler.load_model()))
    assert [row["item"] for row in made] == [[], ["t2", None, None]]
    assert len(made[1]["ctr"]) == 3
    assert made[1]["ctr"][1] == made[1]["ctr"][2]


def test_items_that_only_the_data_set_knows_have_its_names(servable, tmp_path):
    """Of an extended data set; a version scores its new items as unknown."""
    version = str(servable / "1")
    own = (servable / "1" / "assets" / "target.item.txt").read_text()

    def data_set(name, *new):
        folder = tmp_path / name / "vocabularies"
        folder.mkdir(parents=True)
        (folder / "target.item.txt").write_text(own + "".join(f"{item}\n" for item in new))
        (folder / "source.item.txt").write_text("")
        return str(tmp_path / name / "stage2" / "shard")

    one, two, other = data_set("a", "n1"), data_set("b", "n1", "n2"), data_set("c", "n3")
    assert score_batch.new_items(version, [two, one, data_set("d")]) == ["n1", "n2"]
    with pytest.raises(InputError, match=r"c/stage2/shard: its new target items are not those of"):
        score_batch.new_items(version, [one, other])
    first = schema.FIRST_ID + len(own.splitlines())
    row = {"user_id": b"b", "request_time": 2, "candidates": [2, 1, first + 1, first + 2]}
    handler = score_batch.ServableHandler(version, new_items=["n1", "n2"])
    (made,) = handler.run_inference([example(row)], handler.load_model())
    assert made["item"] == ["t2", None, "n2", None]


def test_a_directory_is_refused_by_name(servable, tmp_path):
    with pytest.raises(InputError, match=rf"^input={tmp_path} is a directory: give DATASET/stage2"):
        score_batch.score_records(str(servable / "1"), str(tmp_path), str(tmp_path / "out"))


def test_a_job_that_succeeds_leaves_no_files_of_an_earlier_one(servable, monkeypatch, tmp_path):
    def renamed(*_):
        (tmp_path / "new").write_text("new")
        (tmp_path / "new").rename(tmp_path / "out-00000-of-00001.parquet")

    for name in ("00000-of-00001", "00000-of-00002", "00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"out-{name}.parquet").touch()
    (tmp_path / "empty").write_bytes(b"")
    monkeypatch.setattr(score_batch, "build", renamed)
    score_batch.score_records(str(servable / "1"), f"{tmp_path}/empty", f"{tmp_path}/out")
    left = {path.name: path.read_text() for path in tmp_path.glob("out*")}
    assert left == {"out-00000-of-00001.parquet": "new", "out-test-00000-of-00001.parquet": ""}


def test_what_is_missing_is_named(servable):
    def run(*given):
        score_batch.FLAGS.unparse_flags()
        score_batch.main(cli.parse(score_batch.FLAGS, ["score_batch", *given], keep_unknown=True))

    served = f"--servable={servable / '1'}"
    with pytest.raises(InputError, match="--input is missing"):
        run(served, "--output=x")
    with pytest.raises(InputError, match=r"input=/nowhere/\* matches no file"):
        run(served, "--input=/nowhere/*", "--output=x")
    with pytest.raises(InputError, match="/9 is not a directory"):
        run(f"--servable={servable / '9'}", "--input=x", "--output=x")


def test_a_flag_that_nobody_has_is_refused():
    given = ["x", "--servable=x", "--input=x", "--output=x", "--bacth=3"]
    left = cli.parse(score_batch.FLAGS, given, keep_unknown=True)
    with pytest.raises(InputError, match=r"unknown flag --bacth, .*: did you mean --batch\?"):
        score_batch.main(left)


def test_records_of_another_data_set_are_refused(servable, tmp_path):
    version = servable / "1"
    known = {
        domain: (version / "assets" / f"{domain}.item.txt").read_text().splitlines()
        for domain in ("source", "target")
    }

    def data_set(name, target):
        folder = tmp_path / name / "vocabularies"
        folder.mkdir(parents=True)
        for domain, items in (("source", known["source"]), ("target", target)):
            (folder / f"{domain}.item.txt").write_text("".join(f"{item}\n" for item in items))
        return str(tmp_path / name / "stage2" / "shard")

    score_batch.check_same_ids(str(version), data_set("same", known["target"]))
    score_batch.check_same_ids(str(version), data_set("extended", [*known["target"], "new"]))
    score_batch.check_same_ids(str(version), str(tmp_path / "nowhere" / "stage2" / "shard"))
    other = data_set("other", [known["target"][0], "other", *known["target"][2:]])
    with pytest.raises(InputError, match=r"its target id 3 is 'other', that of .* is 't3'"):
        score_batch.check_same_ids(str(version), other)


def test_a_servable_is_no_version(servable):
    with pytest.raises(InputError, match=r"is a servable: name one of its versions, .*/1"):
        version_files.read_metadata(servable)


def test_what_is_no_stage_2_record_is_refused_before_the_job(servable, run_dir, tmp_path):
    data_dir = runs.read_info(run_dir).data_dir
    stage1 = tf.io.gfile.glob(f"{data_dir}/{schema.shard_glob(schema.STAGE1, schema.TRAIN)}")[0]
    with pytest.raises(InputError, match=r"no stage-2 records .*: give DATASET/stage2"):
        score_batch.score_records(str(servable / "1"), stage1, str(tmp_path / "out"))
    stage2 = tf.io.gfile.glob(f"{data_dir}/{schema.shard_glob(schema.STAGE2, schema.TEST)}")[0]
    score_batch.check_records(stage2, str(servable / "1"))
    text = tmp_path / "text"
    text.write_text("no records, but words that are long enough")
    with pytest.raises(InputError, match="has no stage-2 records"):
        score_batch.check_records(str(text), str(servable / "1"))


def test_every_file_of_the_input_is_checked(servable, monkeypatch, tmp_path):
    checked = []
    monkeypatch.setattr(score_batch, "check_same_ids", lambda _, file: checked.append(file))
    for name in ("a/stage2/0", "a/stage2/1", "b/stage2/0"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    bad = tmp_path / "b" / "stage2" / "0"
    bad.write_text("no records, but words that are long enough")
    with pytest.raises(InputError, match=rf"input={bad} has no stage-2 records"):
        score_batch.score_records(str(servable / "1"), f"{tmp_path}/?/stage2/*", f"{tmp_path}/out")
    assert [file.split("/")[-3] for file in checked] == ["a", "b"]


def test_a_damaged_shard_is_named(servable, small, tmp_path):
    source = tf.io.gfile.glob(f"{small}/{schema.shard_glob(schema.STAGE2, schema.TEST)}")[0]
    cut = tmp_path / "data" / "stage2" / "cut"
    cut.parent.mkdir(parents=True)
    with open(source, "rb") as whole:
        cut.write_bytes(whole.read()[:-10])
    told = rf"input={cut} is damaged \(truncated record at \d+, after \d+ that can be read\): bring"
    with pytest.raises(InputError, match=told):
        score_batch.score_records(str(servable / "1"), str(cut), str(tmp_path / "out"))


def test_what_a_stopped_job_leaves_is_removed(servable, monkeypatch, tmp_path):
    own, others = f"beam-temp-out-{'0a' * 16}", f"beam-temp-out-2-{'0a' * 16}"

    def stopped(*_):
        for name in (own, others):
            (tmp_path / name / "part").mkdir(parents=True)
        raise RuntimeError("stopped")

    (tmp_path / "empty").write_bytes(b"")
    monkeypatch.setattr(score_batch, "build", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        score_batch.score_records(str(servable / "1"), f"{tmp_path}/empty", f"{tmp_path}/out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [others, "empty"]

    def full(*_):
        raise OSError("[Errno 28] No space left on device [while running 'WriteScores']")

    monkeypatch.setattr(score_batch, "build", full)
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/out-\*\.parquet: No space left on device: f"
    ):
        score_batch.score_records(str(servable / "1"), f"{tmp_path}/empty", f"{tmp_path}/out")


def test_a_job_that_fails_leaves_none_of_its_files_and_those_of_an_earlier_one(
    servable, monkeypatch, tmp_path
):
    earlier = tmp_path / "out-00000-of-00002.parquet"
    neighbour = tmp_path / "out-test-00000-of-00001.parquet"  # of another output, meanwhile

    def renamed_one_of_two(*_):
        (tmp_path / "out-00001-of-00002.parquet").touch()
        neighbour.touch()
        raise Exception(
            "Encountered exceptions in finalize_write: [OSError(OSError(28, 'No space left'))]"
        )

    for path in (earlier, tmp_path / "empty"):
        path.touch()
    monkeypatch.setattr(score_batch, "build", renamed_one_of_two)
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/out-\*\.parquet: No space left on device: f"
    ):
        score_batch.score_records(str(servable / "1"), f"{tmp_path}/empty", f"{tmp_path}/out")
    left = ["empty", earlier.name, neighbour.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
