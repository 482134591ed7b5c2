"""--min_item_count=0: items of the item files have ids, also where no log has them."""

import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import build_dataset, verify
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.test_verify import edit_record, mend

NEW = [f"t{item}" for item in range(900, 905)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("described")
    logs.two_logs(path)
    described = [*(f"t{item}" for item in range(40)), *NEW]
    logs.write_lines(
        path / "items.jsonl", [{"item_id": item, "title": "a thing"} for item in described]
    )
    return path


def build(folder, output, *flags):
    return build_dataset.run([
        *logs.flags_of(folder), f"--target_items={folder}/items.jsonl", f"--output={output}",
        "--shards=2", "--negatives=3", *flags,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def without(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("without") / "data"
    return output, build(folder, output)


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "data"
    return output, build(folder, output, "--min_item_count=0", "--keep_events")


def _items(data_dir, domain=schema.TARGET):
    return pq.read_table(data_dir / schema.item_table_path(domain)).slice(schema.FIRST_ID)


def test_they_follow_those_of_the_training_period(built, without):
    items, before = _items(built[0]), _items(without[0])
    clicked = items.filter(pc.greater(items[schema.COUNT], 0))
    assert clicked[schema.ITEM].equals(before[schema.ITEM])
    assert set(NEW) < set(items[schema.ITEM].to_pylist()[len(before) :])
    assert len(items) == 45
    assert set(items[schema.TITLE].to_pylist()) == {"a thing"}
    assert _items(built[0], schema.SOURCE).equals(_items(without[0], schema.SOURCE))


def test_requests_and_their_candidates_are_the_same(built, without):
    """No negative is drawn from them, and a click on one would still stand out."""
    assert built[1].lines == without[1].lines
    for split in schema.STAGE2_SPLITS:
        one, other = (logs.read_records(made[0], schema.STAGE2, split) for made in (built, without))
        for record, before in zip(one, other, strict=True):
            for feature in ("user_id", "request_time", "candidates", "labels"):
                assert record[feature] == before[feature]
            history = zip(record["target_history"], before["target_history"], strict=True)
            assert all(item == known or known == "?" for item, known in history)


def test_their_clicks_are_kept_when_asked_for(folder, built, tmp_path):
    kept = build(folder, tmp_path / "data", "--min_item_count=0", "--keep_unknown_clicks")
    left_out = built[1].lines["requests"]["filtered"]["clicked_item_unknown"]
    assert left_out > 0
    assert kept.lines["requests"]["used"] == built[1].lines["requests"]["used"] + left_out
    known = set(range(40))
    test = logs.read_records(tmp_path / "data", schema.STAGE2, schema.TEST)
    assert {int(item[1:]) for record in test for item in record["candidates"]} <= known
    assert verify.Verifier(str(tmp_path / "data")).verify(with_logs=True).wrong == {}


def test_it_verifies_and_what_is_planted_is_found(built, tmp_path):
    assert verify.Verifier(str(built[0])).verify(with_logs=True).wrong == {}
    data_dir = shutil.copytree(built[0], tmp_path / "negative")
    unclicked = schema.FIRST_ID + len(_items(data_dir)) - 1

    def plant(record):
        record["candidates"][list(record["labels"]).index(0)] = unclicked

    edit_record(data_dir, schema.STAGE2, schema.TRAIN, plant)
    wrong = verify.Verifier(str(data_dir)).verify(with_logs=True).wrong
    assert "negatives were clicked in training" in wrong


def test_a_described_item_without_an_id_is_found(built, tmp_path):
    data_dir = shutil.copytree(built[0], tmp_path / "data")
    path = data_dir / schema.item_table_path(schema.TARGET)
    table = pq.read_table(path)
    renamed = pa.array([*table[schema.ITEM].to_pylist()[:-1], "made up"])
    pq.write_table(table.set_column(0, schema.ITEM, renamed), path)
    text = data_dir / schema.vocabulary_path(schema.TARGET, schema.ITEM)
    text.write_text("".join(f"{item}\n" for item in renamed.to_pylist()[schema.FIRST_ID :]))
    mend(data_dir)
    wrong = verify.Verifier(str(data_dir)).verify(with_logs=True).wrong
    assert "vocabularies come from the training period" in wrong
    assert "every item of the training period has an id" in wrong


def test_ids_stay_the_next_day(folder, built, tmp_path):
    flags = ["--shards=2", "--negatives=3", "--min_item_count=0", f"--extends={built[0]}"]
    logs.write_lines(tmp_path / "target.jsonl", logs.clicks(9, 30, 60, 100, "t", days=60))
    logs.write_lines(tmp_path / "items.jsonl", [{"item_id": "t999", "title": "a new thing"}])
    build_dataset.run([
        *flags, f"--target_log={tmp_path}/target.jsonl", f"--output={tmp_path}/data",
        f"--target_items={tmp_path}/items.jsonl",
    ])  # fmt: skip
    before, now = _items(built[0]), _items(tmp_path / "data")
    assert now[schema.ITEM][: len(before)].equals(before[schema.ITEM])
    assert "t999" in now[schema.ITEM].to_pylist()
    assert verify.Verifier(str(tmp_path / "data")).verify(with_logs=True).wrong == {}


def test_files_of_other_items_are_still_an_error(folder, tmp_path):
    logs.write_lines(tmp_path / "items.jsonl", [{"item_id": "x1"}])
    flags = [f"--target_items={tmp_path}/items.jsonl", "--min_item_count=0"]
    with pytest.raises(InputError, match="describes none of the"):
        build(folder, tmp_path / "data", *flags)
