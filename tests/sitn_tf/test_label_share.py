"""Shares of the training requests: which are kept, in what order they are read, what is refused."""

import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, label_share, schema
from sitn_tf.errors import InputError
from sitn_tf.training.stage import Stage
from tests.small_dataset import example, request_record

SHARDS, SHARE = 3, 0.3


def _shards(folder, records):
    """Writes the training shards of stage 2."""
    for old in folder.glob(schema.shard_glob(schema.STAGE2, schema.TRAIN)):
        old.unlink()
    for n, of_shard in enumerate(records):
        name = schema.shard_glob(schema.STAGE2, schema.TRAIN)
        with tf.io.TFRecordWriter(
            str(folder / name.replace("*", f"{n:05d}-of-{SHARDS:05d}"))
        ) as writer:
            for record in of_shard:
                writer.write(record)
    return folder


@pytest.fixture(scope="module")
def records():
    """120 requests in shards of 20, 40 and 60."""
    rng = np.random.default_rng(5)
    made = [example(request_record(rng, user)) for user in range(120)]
    return [made[:20], made[20:60], made[60:]]


@pytest.fixture(scope="module")
def whole(small, records, tmp_path_factory):
    return _shards(shutil.copytree(small, tmp_path_factory.mktemp("labels") / "whole"), records)


def _users(batches):
    return [batch["user_id"].numpy().tolist() for batch in batches]


def test_a_share_is_read_as_if_there_was_nothing_else(whole, records, tmp_path):
    """Whole and thinned files give the same batches; so earlier figures can be had again."""
    kept = [[r for r in shard if zlib.crc32(r) < SHARE * 2**32] for shard in records]
    few = _shards(shutil.copytree(whole, tmp_path / "few"), kept)
    count = sum(map(len, kept))
    assert 20 < count < 60
    chosen = ["stage2.batch_size=8", f"stage2.label_share={SHARE}"]
    stage = Stage(schema.STAGE2, config.override(config.tiny(), chosen), whole)
    assert (stage.records, stage.steps) == (count, -(-count // 8))
    expected = _users(data.read_epoch(few, schema.STAGE2, 8, seed=0, epoch=1))
    assert sum(map(len, expected)) == count
    assert _users(stage.batches(1, 0)) == expected
    assert _users(stage.batches(1, 1)) == expected[1:]


def test_a_larger_share_keeps_what_a_smaller_one_does(records):
    every = [record for shard in records for record in shard]
    of = {share: {r for r in every if label_share.is_kept(r, share)} for share in (0.1, 0.5, 1.0)}
    assert 0 < len(of[0.1]) < len(of[0.5]) < len(of[1.0]) == 120
    assert of[0.1] < of[0.5]


def test_a_share_that_keeps_nothing_and_a_lost_record_are_refused(whole, records, tmp_path):
    def make(folder, share):
        return Stage(
            schema.STAGE2, config.override(config.tiny(), [f"stage2.label_share={share}"]), folder
        )

    with pytest.raises(InputError, match=r"label_share=1e-06 keeps none of 120 .*: give a larger"):
        make(whole, 1e-6)
    short = _shards(shutil.copytree(whole, tmp_path / "short"), [records[0], records[1], []])
    with pytest.raises(InputError, match="an epoch of stage2 gave 60 of 120 records"):
        make(short, SHARE)
    for share, accepted in ((0, "above 0.0"), (1.5, "at most 1")):
        with pytest.raises(InputError, match=rf"^stage2\.label_share={share}.* is not {accepted}"):
            config.override(config.tiny(), [f"stage2.label_share={share}"])


def test_shares_start_from_one_stage_1_and_are_told_of_a_run():
    few = config.override(config.default(), ["stage2.label_share=0.02"])
    assert few.used()["stage2"]["label_share"] == 0.02
    assert config.for_stage1(few) == config.for_stage1(config.default())
