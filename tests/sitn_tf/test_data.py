"""Reading: every record once, whatever the order of the batches."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import data, schema
from tests.small_dataset import example, write_small_dataset

REQUESTS = 1000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("many"), requests=REQUESTS)


def _lengths(batch):
    parts = [(batch[f.name].numpy() != 0).sum(axis=1) for f in schema.HISTORY_OF_DOMAIN.values()]
    return np.max(parts, axis=0)


def _requests(batches):
    """Each request as bytes, in the order read."""
    rows = []
    for batch in batches:
        columns = [batch["user_id"], batch["target_history"], batch["candidates"], batch["labels"]]
        for row in zip(*(column.numpy() for column in columns), strict=True):
            rows.append((row[0], *(tuple(ids[ids != 0]) for ids in row[1:3]), tuple(row[3])))
    return rows


def test_batches_by_length_hold_every_request_once(many):
    plain = data.read_split(many, schema.STAGE2, schema.TRAIN, 7)
    sorted_ = data.read_split(many, schema.STAGE2, schema.TRAIN, 7, 3, by_length=True)
    assert sorted(_requests(sorted_)) == sorted(_requests(plain))
    sizes = [len(batch["user_id"]) for batch in sorted_]
    assert sorted(sizes) == [REQUESTS % 7 or 7] + [7] * (REQUESTS // 7)


def test_batches_by_length_are_of_similar_lengths_in_the_seeds_order(many):
    batches = list(data.read_split(many, schema.STAGE2, schema.TRAIN, 8, 3, by_length=True))
    lengths = [_lengths(batch) for batch in batches]
    longest = np.array([row.max() for row in lengths])
    padding = 1 - sum(row.sum() for row in lengths) / sum(8 * row.max() for row in lengths)
    mixed = [_lengths(b) for b in data.read_split(many, schema.STAGE2, schema.TRAIN, 8, 3)]
    assert padding < 0.1
    assert 1 - sum(row.sum() for row in mixed) / sum(8 * row.max() for row in mixed) > 0.2
    # Neither from short to long nor the same in each window of batches.
    windows = longest[: len(longest) // data.LENGTH_WINDOW * data.LENGTH_WINDOW]
    windows = windows.reshape(-1, data.LENGTH_WINDOW)
    assert (np.diff(windows, axis=1) < 0).any(axis=1).all()
    assert not (windows == windows[0]).all()
    for batch in batches:
        assert batch["target_history"].shape[1] <= _lengths(batch).max()


def test_an_epochs_order_depends_on_seed_and_epoch_alone(many):
    def read(seed, epoch):
        return _requests(data.read_epoch(many, schema.STAGE2, 8, seed, epoch))

    assert read(1, 2) == read(1, 2)
    assert read(1, 2) != read(1, 3)
    assert read(1, 2) != read(2, 2)


@pytest.mark.parametrize("stage", [schema.STAGE1, schema.STAGE2])
def test_a_pass_that_is_continued_reads_the_rest(many, stage):
    def read(skip):
        batches = data.read_epoch(many, stage, 8, 1, 2, skip)
        return [batch["target_history"].numpy().tolist() for batch in batches]

    whole = read(0)
    for skip in (1, data.LENGTH_WINDOW, data.LENGTH_WINDOW + 3, len(whole)):
        assert read(skip) == whole[skip:]


def test_stage_1_mixes_lengths(many):
    def read(**options):
        batches = data.read_split(many, schema.STAGE1, schema.TRAIN, 8, 1_000_004, **options)
        return [batch["user_id"].numpy().tolist() for batch in batches]

    epoch = [b["user_id"].numpy().tolist() for b in data.read_epoch(many, schema.STAGE1, 8, 1, 1)]
    assert epoch == read()
    assert epoch != read(by_length=True)


def test_times_are_read_where_the_data_set_has_them(many, tmp_path):
    assert "target_times" not in next(iter(data.read_split(many, schema.STAGE2, schema.TEST, 7)))
    timed = write_small_dataset(tmp_path / "timed", click_times=True)
    for stage in schema.SPLITS:
        for batch in (
            next(iter(data.read_split(timed, stage, schema.TRAIN, 7))),
            next(iter(data.read_split(timed, stage, schema.TRAIN, 7, 3, by_length=True))),
        ):
            times, ids = batch["target_times"].numpy(), batch["target_history"].numpy()
            assert ((times > 0) == (ids != 0)).all()
            assert (times.max(axis=1)[(ids != 0).any(axis=1)] == 900).all()


def test_a_history_with_fewer_times_than_clicks_is_refused():
    record = {"target_history": [3, 4], "target_times": [10]}
    with pytest.raises(tf.errors.InvalidArgumentError, match="target_times has not a time for eac"):
        data.parse(tf.constant([example(record)]), (schema.TARGET_HISTORY, schema.TARGET_TIMES))


def test_the_schema_of_a_data_set_without_times_is_the_one_that_it_was():
    """Data sets that were built before records could hold times stay readable."""
    assert schema.schema_hash() == "efa01651fcdfd236"
    assert schema.schema_hash(click_times=True) != schema.schema_hash()
