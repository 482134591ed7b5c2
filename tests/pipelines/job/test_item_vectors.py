"""Item files with vectors to data sets: both domains, one, none; and the next day."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import build_dataset, verify
from sitn_tf import item_tables, schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.test_verify import mend

FLAGS = ["--items_vector_field=emb", "--vector_dim=3", "--shards=2", "--negatives=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors")
    logs.two_logs(path)
    bad = [
        {"item_id": "s900", "emb": [1.0] * (logs.WIDTH - 1)},
        {"item_id": "s901", "emb": [float("nan")] * logs.WIDTH},
        {"item_id": "s902", "emb": "none"},
    ]
    logs.items_with_vectors(path / "source.items.jsonl", "s", seed=1, more=bad)
    logs.items_with_vectors(path / "target.items.jsonl", "t", seed=2)
    logs.items_with_vectors(path / "plain.items.jsonl", "t", vectors=False)
    return path


def build(folder, output, *flags, source="source", target="target"):
    return build_dataset.run([
        *logs.flags_of(folder), f"--source_items={folder}/{source}.items.jsonl",
        f"--target_items={folder}/{target}.items.jsonl", f"--output={output}",
        "--max_reject_rate=0.2", *FLAGS, *flags,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "data"
    return output, build(folder, output, "--keep_events")


def _by_item(data_dir, domain):
    table = pq.read_table(data_dir / schema.item_table_path(domain))
    rows = item_tables.vectors_of(table)
    return dict(zip(table[schema.ITEM].to_pylist()[2:], rows[2:], strict=True))


def test_vectors_are_in_both_item_tables(folder, built):
    data_dir, manifest = built
    assert {n: manifest.vectors[n] for n in ("width", "dims")} == {"width": logs.WIDTH, "dims": 3}
    basis = np.load(data_dir / schema.ITEM_VECTORS_PATH)
    for domain in schema.DOMAINS:
        raw = {}
        for line in (folder / f"{domain}.items.jsonl").read_text().splitlines():
            row = json.loads(line)
            if len(row.get("emb", "")) == logs.WIDTH and np.isfinite(row["emb"]).all():
                raw[row["item_id"]] = np.array(row["emb"])
        ours = _by_item(data_dir, domain)
        known = sorted(ours.keys() & raw.keys())
        assert manifest.vectors["items"][domain] == len(known)
        rows = np.array([raw[item] for item in known])
        np.testing.assert_allclose(basis[domain], rows.mean(axis=0), atol=1e-6)
        expected = (rows - rows.mean(axis=0)) @ basis["components"]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose([ours[item] for item in known], expected, atol=1e-3)
        for item in ours.keys() - raw.keys():
            np.testing.assert_array_equal(ours[item], np.zeros(3))


def test_rejects_are_counted_by_reason(built):
    assert built[1].lines["source_items"]["rejected"] == {
        "emb has a number that is not finite": 1,
        "emb has not 6 numbers": 1,
        "emb is no list of numbers": 1,
    }


def test_it_verifies(built):
    findings = verify.Verifier(str(built[0])).verify(with_logs=True)
    assert findings.wrong == {}
    assert findings.looked_at["item vectors are of length 1 or 0"] > 50


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda v: v * 0.5, "item vectors are of length 1 or 0"),
        (lambda v: np.where(v == v[5, 0], np.nan, v), "item vectors are of length 1 or 0"),
        (lambda v: v[:, :2], "item vectors have their width"),
        (lambda v: np.ones_like(v) / 3**0.5, "as many items have vectors as the manifest says"),
        (None, "item vectors are where the manifest has them"),
    ],
)
def test_what_is_planted_is_found(built, tmp_path, edit, what):
    data_dir = shutil.copytree(built[0], tmp_path / "data")
    path = data_dir / schema.item_table_path(schema.SOURCE)
    table = pq.read_table(path)
    changed = table.drop_columns([schema.VECTOR])
    if edit:
        rows = edit(item_tables.vectors_of(table)).astype(np.float16)
        flat = pa.array(rows.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        changed = changed.append_column(schema.VECTOR, column)
    pq.write_table(changed, path)
    mend(data_dir)
    assert what in verify.Verifier(str(data_dir)).verify(with_logs=False).wrong


def test_a_domain_without_vectors_has_no_column(folder, tmp_path, capsys):
    manifest = build(folder, tmp_path / "data", target="plain")
    assert set(manifest.vectors["items"]) == {"source"}
    assert "note: no target item has a vector" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "data" / schema.item_table_path(schema.TARGET))
    assert tuple(table.column_names) == schema.ITEM_TABLE_COLUMNS
    assert verify.Verifier(str(tmp_path / "data")).verify(with_logs=True).wrong == {}


def test_a_field_that_no_item_has_is_an_error(folder, tmp_path):
    logs.items_with_vectors(folder / "bare.items.jsonl", "s", vectors=False)
    with pytest.raises(InputError, match=r"--items_vector_field=emb: no item of the item files"):
        build(folder, tmp_path / "data", source="bare", target="plain")
    logs.items_with_vectors(
        folder / "others.items.jsonl", "s", vectors=False, more=[{"item_id": "x", "emb": [1.0]}]
    )
    with pytest.raises(InputError, match=r"--items_vector_field=emb: no item of the logs"):
        build(folder, tmp_path / "data", source="others", target="plain")


def test_without_the_field_all_is_as_before(folder, tmp_path):
    manifest = build(folder, tmp_path / "data", "--items_vector_field=")
    assert manifest.vectors == {}
    assert not (tmp_path / "data" / schema.ITEM_VECTORS_PATH).exists()


def test_known_items_keep_their_vectors_the_next_day(folder, built, tmp_path):
    data_dir, manifest = built
    more = logs.clicks(9, 30, 80, 100, "t", days=2)
    logs.write_lines(tmp_path / "target.jsonl", more)
    logs.items_with_vectors(tmp_path / "target.items.jsonl", "t", items=80, seed=2)
    flags = [f"--extends={data_dir}", f"--target_log={tmp_path}/target.jsonl", *FLAGS]
    second = build_dataset.run(
        [*flags, f"--target_items={tmp_path}/target.items.jsonl", f"--output={tmp_path}/data"]
    )
    assert second.vectors["items"]["target"] > manifest.vectors["items"]["target"]
    for domain in schema.DOMAINS:
        before, now = _by_item(data_dir, domain), _by_item(tmp_path / "data", domain)
        for item, vector in before.items():
            np.testing.assert_array_equal(now[item], vector)
    assert verify.Verifier(f"{tmp_path}/data").verify(with_logs=True).wrong == {}
    flags.append(f"--output={tmp_path}/other")
    with pytest.raises(InputError, match="--vector_dim=2 differs from 3"):
        build_dataset.run([*flags, "--vector_dim=2"])
    flags += ["--items_vector_field=", f"--target_items={tmp_path}/target.items.jsonl"]
    with pytest.raises(InputError, match=r"--items_vector_field is not given, but --extends=.*/d"):
        build_dataset.run(flags)
