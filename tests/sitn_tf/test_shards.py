"""Shards that are missing, cut off or altered: named, and done without where that is asked for."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest
import tensorflow as tf

from sitn_tf import data, runs, schema, shards, train
from sitn_tf.errors import InputError
from tests import commands
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.usefixtures("module_op_by_op")

SHARDS = 4
TRAIN = f"{schema.STAGE2}/sitn_stage2-train.tfrecord"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A data set whose requests to train on lie in four shards, 30 in each."""
    folder = write_small_dataset(tmp_path_factory.mktemp("sharded"))
    [whole] = folder.glob(f"{TRAIN}-*")
    records = list(tf.data.TFRecordDataset(str(whole)).as_numpy_iterator())
    whole.unlink()
    counts = {}
    for index in range(SHARDS):
        name = f"{TRAIN}-{index:05d}-of-{SHARDS:05d}"
        _write(folder / name, records[index::SHARDS])
        counts[name] = len(records[index::SHARDS])
    manifest = dataclasses.replace(schema.read_manifest(folder), shards=counts)
    (folder / schema.MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def _write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def _spoil(folder, how, index=2):
    path = pathlib.Path(folder) / f"{TRAIN}-{index:05d}-of-{SHARDS:05d}"
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut in a record":
        path.write_bytes(content[:-5])
    elif how == "cut between records":
        _write(path, list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())[:20])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return path


HOW = {  # what is said of the shard, and how many of its 30 records are lost
    "missing": ("it is missing", {30}),
    "cut in a record": (r"truncated record at \d+", {1}),
    "cut between records": ("it has 20 records, the manifest 30", {10}),
    "altered": (r"corrupted record at \d+", {*range(13, 18)}),
}


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_shard_is_named_and_its_records_are_counted(sharded, tmp_path, how):
    folder = shutil.copytree(sharded, tmp_path / "data")
    path, (why, lost), manifest = _spoil(folder, how), HOW[how], schema.read_manifest(folder)
    [bad] = shards.damage(folder, manifest, [schema.STAGE2])
    assert bad.lost in lost
    told = shards.describe(folder, [bad] * 4)
    named = rf"{path} is damaged \({why}; {bad.lost} records lost\)"
    assert re.fullmatch(rf"{named}; {named}; {named}; and 1 more", told)
    assert shards.skipped(folder, manifest, [schema.STAGE2], bad.lost) == {bad.shard: bad.lost}
    with pytest.raises(InputError, match=rf"{bad.lost} records are lost, skip_corrupt=0 allows 0"):
        shards.skipped(folder, manifest, [schema.STAGE2], 0)
    batches = data.read_split(folder, schema.STAGE2, schema.TRAIN, 50, 3, lossy=True)
    assert sum(len(batch["user_id"]) for batch in batches) == 120 - bad.lost


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "is missing"),
        ("cut between records", "is damaged .it has 20 records, the manifest 30"),
        pytest.param("altered", "is damaged .corrupted record at", marks=pytest.mark.slow),
    ],
)
def test_training_names_the_shard(sharded, tmp_path, how, said):
    path = _spoil(shutil.copytree(sharded, tmp_path / "data"), how)
    with pytest.raises(InputError, match=rf"{path} {said}.*: see python -m pipelines.verify"):
        _train(tmp_path)


def test_training_counts_what_it_does_without(sharded, tmp_path, capsys):
    _spoil(shutil.copytree(sharded, tmp_path / "data"), "altered")
    with pytest.raises(InputError, match=r"are lost, --skip_corrupt=2 allows 2: .* damaged"):
        _train(tmp_path, "--skip_corrupt=2")
    _train(tmp_path, "--skip_corrupt=20")
    run_dir = tmp_path / "run" / "stage2"
    told = json.loads((run_dir / runs.SKIPPED_FILE).read_text())
    history = json.loads((run_dir / runs.HISTORY_FILE).read_text())
    assert history[0]["records"] == 120 - told["records"]
    assert f"{told['records']} records of damaged shards are done" in capsys.readouterr().out


def _train(tmp_path, *more):
    commands.run_main(
        train, "--stage=2", f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}",
        "--preset=tiny", "--init=none", "--set=stage2.epochs=1", *more,
    )  # fmt: skip


def test_whole_shards_cost_nothing(sharded):
    assert not shards.damage(sharded, schema.read_manifest(sharded), [schema.STAGE2])
