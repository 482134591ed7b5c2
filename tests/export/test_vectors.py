"""Vectors for retrieval: of the right rows, in one space, found by TFRS as by hand."""

import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from export import vectors
from sitn_tf import config, runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import instances
from sitn_tf.models.registry import make_pretrainer
from tests.small_dataset import SOURCE_ITEMS, TARGET_ITEMS, write_small_dataset


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    """A finished stage-1 run with random weights, and its model."""
    folder = tmp_path_factory.mktemp("stage1")
    data_dir = write_small_dataset(folder / "dataset")
    manifest = schema.read_manifest(data_dir)
    settings = config.tiny()
    info = runs.RunInfo(
        schema.STAGE1, str(data_dir), manifest.dataset_hash, "none", runs.versions()
    )
    run_dir = folder / "stage1"
    runs.prepare(run_dir, settings, manifest, info)
    tables = runs.read_tables(data_dir, manifest, settings)
    model = make_pretrainer(settings, tables, manifest.max_history)
    tf.train.Checkpoint(model=model).save(str(run_dir / runs.BEST / "ckpt"))
    whole_files.write_json(run_dir / runs.METRICS_FILE, {})
    return run_dir, model


@pytest.fixture(scope="module")
def written(stage1, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "out"
    return folder, vectors.write_vectors(stage1[0], folder)


def test_sizes_and_unit_rows(written):
    folder, info = written
    assert info["items"] == {"source": SOURCE_ITEMS - 2, "target": TARGET_ITEMS - 2}
    assert info["users"] == 40 + 20
    assert info["clusters"] == 2 * (4 + 8)
    for name in ("items.source", "items.target", "users.source", "users.target"):
        rows = np.load(folder / f"{name}.npy")
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.isfinite(np.load(folder / "items.target.npy")).all()


def test_parquet_and_numpy_agree(written):
    folder, _ = written
    table = pq.read_table(folder / "items.target.parquet")
    np.testing.assert_array_equal(
        np.array(table.column("vector").to_pylist(), np.float32),
        np.load(folder / "items.target.npy"),
    )
    assert table.column("item").to_pylist()[:2] == ["t2", "t3"]
    clusters = pq.read_table(folder / "clusters.parquet").to_pydict()
    assert set(zip(clusters["domain"], clusters["granularity"], strict=True)) == {
        (domain, k) for domain in schema.DOMAINS for k in (4, 8)
    }


def test_items_in_parts_are_those_in_one(written, stage1, tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "BATCH", 9)
    monkeypatch.setattr(vectors, "ROWS_A_GROUP", 5)
    vectors.write_vectors(stage1[0], tmp_path / "parts")
    for domain in schema.DOMAINS:
        name = f"items.{domain}"
        whole, parts = (
            np.load(folder / f"{name}.npy") for folder in (written[0], tmp_path / "parts")
        )
        np.testing.assert_allclose(parts, whole, atol=1e-6)
        file = pq.ParquetFile(tmp_path / "parts" / f"{name}.parquet")
        assert file.num_row_groups == -(-len(whole) // 5)
        expected = pq.read_table(written[0] / f"{name}.parquet")
        assert file.read().drop(["vector"]).equals(expected.drop(["vector"]))
        rows = np.array(file.read().column("vector").to_pylist(), np.float32)
        np.testing.assert_array_equal(rows, parts)


def test_an_item_is_the_instance_of_a_history_of_itself(written, stage1):
    folder, _ = written
    alone = {"source_history": tf.constant([[0, 0]], tf.int64),
             "target_history": tf.constant([[5, 0]], tf.int64)}  # fmt: skip
    _, p_target = stage1[1](alone)
    np.testing.assert_allclose(np.load(folder / "items.target.npy")[3], p_target[0], atol=1e-6)


@pytest.mark.parametrize("index", list(vectors.INDEXES))
def test_an_index_finds_what_sorting_finds(index):
    if index == "faiss":
        pytest.importorskip("faiss", reason="an optional extra: pip install faiss-cpu")
    rng = np.random.default_rng(0)
    items = rng.normal(size=(50, 4)).astype(np.float32)
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    scores, found = vectors.INDEXES[index](items, [f"i{n}" for n in range(50)], 5)(queries)
    order = np.argsort(-queries @ items.T, axis=1)[:, :5]
    assert [[int(name[1:]) for name in row] for row in found] == order.tolist()
    np.testing.assert_allclose(scores, np.sort(queries @ items.T, axis=1)[:, ::-1][:, :5],
                               rtol=1e-5)  # fmt: skip


def test_faiss_that_is_not_installed_is_a_usage_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="FAISS is not installed: pip install faiss-cpu"):
        vectors.faiss_flat(np.eye(4, dtype=np.float32), list("abcd"), 2)


def test_nearest_items_of_a_user(written):
    folder, info = written
    lines = vectors.nearest_items(folder, info["example_user"], 3).splitlines()
    assert len(lines) == 3
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values, reverse=True)
    assert "title of t" in lines[0]
    with pytest.raises(InputError, match="user=nobody is not in"):
        vectors.nearest_items(folder, "nobody", 3)
    with pytest.raises(InputError, match="holds no vectors"):
        vectors.nearest_items(folder / "none", "u1", 3)


@pytest.mark.parametrize("left", [0, 9, 200])
def test_damaged_vectors_of_users_are_named(written, tmp_path, left):
    folder = shutil.copytree(written[0], tmp_path / "vectors")
    path = folder / "users.target.npy"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        InputError, match=r"users\.target\.npy is damaged \(.*: bring the file back"
    ):
        vectors.nearest_items(folder, written[1]["example_user"], 3)


def test_usage_errors(stage1, written, run_dir, tmp_path):
    with pytest.raises(InputError, match="exists: name another, or remove it"):
        vectors.write_vectors(stage1[0], written[0])
    with pytest.raises(InputError, match="missing is not a directory"):
        vectors.write_vectors(tmp_path / "missing", tmp_path / "out")
    with pytest.raises(InputError, match="holds a run of stage2, not of stage1"):
        vectors.write_vectors(run_dir, tmp_path / "out")
    other = write_small_dataset(tmp_path / "other", dataset_hash="another")
    with pytest.raises(InputError, match="other is the data set another"):
        vectors.write_vectors(stage1[0], tmp_path / "out", other)
    assert not (tmp_path / "out").exists()
