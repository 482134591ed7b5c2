"""--title_model: titles of both domains to vectors of items; and the next day."""

import importlib.util
import itertools
import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import build_dataset, verify
from pipelines.job import title_model
from pipelines.logs import files
from pipelines.records import title_vectors
from sitn_tf import item_tables, schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.small_title_model import WIDTH, expected, write_model

TITLES = [
    "", *map(" ".join, itertools.permutations(["red", "blue", "dog", "cat"], 2)),
    "a red dog bowl cat cat cat",
]  # fmt: skip
RUNS = all(map(importlib.util.find_spec, ("onnxruntime", "tokenizers", "onnx")))
needs_onnx = pytest.mark.skipif(not RUNS, reason="needs onnxruntime, tokenizers and onnx")
needs_none = pytest.mark.skipif(
    bool(importlib.util.find_spec("sentence_transformers")), reason="sentence_transformers is there"
)


def _items(path, prefix, titles, items=50):
    rows = [
        {"item_id": f"{prefix}{item}", "title": titles[item % len(titles)]} for item in range(items)
    ]
    return logs.write_lines(path, rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("titles")
    logs.two_logs(path)
    _items(path / "source.items.jsonl", "s", TITLES)
    _items(path / "target.items.jsonl", "t", TITLES[::2])
    return path


def build(folder, output, model, *flags):
    return build_dataset.run([
        *logs.flags_of(folder), f"--source_items={folder}/source.items.jsonl",
        f"--target_items={folder}/target.items.jsonl", f"--output={output}", "--shards=2",
        "--negatives=3", f"--title_model={model}", "--vector_dim=3", *flags,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "words")


@pytest.fixture(scope="module")
def built(folder, model, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "data"
    return output, build(folder, output, model, "--keep_events")


def _check_vectors(data_dir, of_title):
    """The item table's vectors are those of the titles: centred, short, of length 1."""
    basis = np.load(data_dir / schema.ITEM_VECTORS_PATH)
    for domain in schema.DOMAINS:
        table = pq.read_table(data_dir / schema.item_table_path(domain))
        titles = table[schema.TITLE].to_pylist()
        with_title = np.flatnonzero([bool(title) for title in titles])
        raw = np.array([of_title(titles[row]) for row in with_title])
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(basis[domain], raw.mean(axis=0), atol=1e-6)
        short = (raw - raw.mean(axis=0)) @ basis["components"]
        ours = item_tables.vectors_of(table)
        short /= np.linalg.norm(short, axis=1, keepdims=True)
        np.testing.assert_allclose(ours[with_title], short, atol=1e-3)
        assert not np.delete(ours, with_title, axis=0).any()


@needs_onnx
def test_vectors_are_the_means_of_tokens(built):
    data_dir, manifest = built
    _check_vectors(data_dir, expected)
    assert {n: manifest.vectors[n] for n in ("width", "dims")} == {"width": WIDTH, "dims": 3}
    assert set(manifest.vectors["items"]) == set(schema.DOMAINS)
    assert verify.Verifier(str(data_dir)).verify(with_logs=True).wrong == {}


@needs_onnx
def test_the_manifest_knows_the_model(built, model):
    found = title_model.find(str(model))
    assert built[1].vectors["model"] == {"name": str(model), "sha256": found.sha256}
    assert built[1].options["title_model"] == str(model)


@needs_onnx
def test_the_hash_is_of_what_is_used(model, tmp_path):
    known = title_model.find(str(model)).sha256
    copied = shutil.copytree(model, tmp_path / "copied")
    (copied / "README.md").write_text("more")
    (copied / ".git").mkdir()
    (copied / ".git" / "HEAD").write_text("main")
    assert title_model.find(str(copied)).sha256 == known
    for name in ("tokenizer.json", "sentence_bert_config.json", "model.onnx"):
        changed = shutil.copytree(model, tmp_path / name)
        (changed / name).write_bytes((changed / name).read_bytes() + b" ")
        assert title_model.find(str(changed)).sha256 != known
    (copied / "onnx").mkdir()
    shutil.copy(copied / "model.onnx", copied / "onnx")
    found = title_model.find(str(copied))
    assert found.onnx == str(copied / "onnx" / "model.onnx")
    assert found.sha256 != known


@needs_onnx
def test_each_title_is_embedded_once_and_the_next_day_only_new_ones(
    folder, built, model, tmp_path, monkeypatch
):
    asked = []
    encode = title_model.OnnxEncoder.__call__

    def counted(self, title):
        asked.append(title)
        return encode(self, title)

    monkeypatch.setattr(title_model.OnnxEncoder, "__call__", counted)
    again = build(folder, tmp_path / "again", model, "--keep_events")
    assert again.dataset_hash == built[1].dataset_hash
    assert sorted(asked) == sorted(filter(None, TITLES))
    asked.clear()
    logs.write_lines(tmp_path / "target.jsonl", logs.clicks(9, 30, 80, 100, "t", days=2))
    _items(tmp_path / "items.jsonl", "t", [*TITLES[::2], "red red bowl"], items=80)
    moved = shutil.copytree(model, tmp_path / "the_same_elsewhere")
    second = build_dataset.run([
        f"--extends={built[0]}", f"--target_log={tmp_path}/target.jsonl", "--shards=2",
        f"--target_items={tmp_path}/items.jsonl", f"--output={tmp_path}/data", "--vector_dim=3",
        f"--title_model={moved}", "--negatives=3",
    ])  # fmt: skip
    assert asked == ["red red bowl"]
    assert second.vectors["items"]["target"] > built[1].vectors["items"]["target"]
    by_title = {}
    for data_dir, domain in itertools.product((built[0], tmp_path / "data"), schema.DOMAINS):
        table = pq.read_table(data_dir / schema.item_table_path(domain))
        titles = table[schema.TITLE].to_pylist()
        for title, vector in zip(titles, item_tables.vectors_of(table), strict=True):
            np.testing.assert_array_equal(by_title.setdefault((domain, title), vector), vector)
    assert ("target", "red red bowl") in by_title
    assert verify.Verifier(f"{tmp_path}/data").verify(with_logs=True).wrong == {}


@needs_onnx
def test_another_model_is_refused(folder, built, model, tmp_path):
    flags = [f"--extends={built[0]}", f"--target_log={folder}/target.jsonl.gz", "--shards=2",
             "--vector_dim=3", f"--output={tmp_path}/data"]  # fmt: skip
    other = write_model(tmp_path / "other", seed=1)
    made = rf"made with: its items have vectors by --title_model={model}: give that \("
    for option in (f"--title_model={other}", "--items_vector_field=emb", "--title_model="):
        with pytest.raises(InputError, match=made):
            build_dataset.run([*flags, option])


@needs_onnx
def test_vectors_of_files_are_not_extended_by_a_model(folder, model, tmp_path):
    rows = [{"item_id": f"t{i}", "emb": [float(i), 1.0]} for i in range(40)]
    logs.write_lines(tmp_path / "items.jsonl", rows)
    build_dataset.run([
        *logs.flags_of(folder), f"--target_items={tmp_path}/items.jsonl", "--shards=2",
        "--items_vector_field=emb", "--keep_events", f"--output={tmp_path}/data",
    ])  # fmt: skip
    with pytest.raises(InputError, match="vectors of --items_vector_field: leave it out"):
        build_dataset.run([
            f"--extends={tmp_path}/data", f"--title_model={model}", "--shards=2",
            f"--output={tmp_path}/more", f"--target_log={folder}/target.jsonl.gz",
        ])  # fmt: skip


@needs_onnx
def test_logs_without_titles(folder, model, tmp_path):
    for domain in schema.DOMAINS:
        _items(tmp_path / f"{domain}.items.jsonl", domain[0], [""])
        shutil.copy(next(folder.glob(f"{domain}.jsonl*")), tmp_path)
    with pytest.raises(InputError, match=r"--title_model=.*: no item of the logs has a title"):
        build(tmp_path, tmp_path / "data", model)


@needs_onnx
def test_an_onnx_file_that_takes_something_else(model, tmp_path):
    import onnx

    other = shutil.copytree(model, tmp_path / "other")
    graph = onnx.load(other / "model.onnx")
    graph.graph.input[1].name = "pixels"
    onnx.save(graph, other / "model.onnx")
    with pytest.raises(InputError, match=r"takes input_ids, pixels: give one that takes attention"):
        title_model.OnnxEncoder(str(other), str(other / "model.onnx"))


def _empty_model(folder):
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@needs_none
def test_without_an_onnx_file_and_without_pytorch(tmp_path):
    folder = _empty_model(tmp_path / "model")
    needed = r"needs sentence_transformers: pip install .*\[titles_torch\]' \(or give a model"
    with pytest.raises(InputError, match=needed):
        title_model.find(str(folder))


def test_a_model_that_is_not_there(tmp_path):
    for name in (str(tmp_path), "no-such-package", "json"):
        with pytest.raises(InputError, match=f"title_model={name} has no tokenizer.json: give a"):
            title_model.find(name)


def test_a_model_without_the_mean(tmp_path):
    folder = _empty_model(tmp_path / "model")
    (folder / "model.onnx").touch()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(InputError, match="does not take the mean of its tokens"):
        title_model.find(str(folder))


def test_a_model_and_a_field_are_too_much(folder, tmp_path):
    with pytest.raises(InputError, match="--title_model=x and --items_vector_field=emb both make"):
        build(folder, tmp_path / "data", "x", "--items_vector_field=emb")


def test_a_vector_that_is_not_finite(tmp_path):
    made = [("fine", np.ones(2)), ("bad", np.array([1, np.nan]))]
    with pytest.raises(InputError, match="no finite vector of the title 'bad'"):
        title_vectors.write(str(tmp_path / "x"), made)


def test_titles_are_looked_up_in_all_files(tmp_path):
    import pyarrow as pa

    paths = [str(tmp_path / name) for name in "ab"]
    title_vectors.write(paths[0], [("one", np.array([3.0, 4.0]))])
    title_vectors.write(paths[1], [("two", np.array([0.0, 2.0])), ("none", np.zeros(2))])
    wanted = pa.chunked_array([["two", "", "one"], ["three", "none", "two"]])
    expected = np.array([[0, 1], [0, 0], [0.6, 0.8], [0, 0], [0, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(title_vectors.look_up(wanted, paths), expected, rtol=1e-6)
    title_vectors.together(paths, str(tmp_path / "c"))
    assert len(files.read_table_batches(str(tmp_path / "c"))) == 3


def test_sentence_transformers_run_a_model_without_an_onnx_file(folder, tmp_path, monkeypatch):
    """Beam's own handler, and a stand-in for the package: a title's length and words."""
    package = tmp_path / "sentence_transformers"
    package.mkdir()
    (package / "__init__.py").write_text(
        "class SentenceTransformer:\n"
        "    def __init__(self, name):\n"
        "        self.name = name\n"
        "    def encode(self, batch):\n"
        "        return [[float(len(t)), float(len(t.split())), 1.0] for t in batch]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("sentence_transformers", "apache_beam.ml.transforms.embeddings.huggingface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "packed" / "model").mkdir(parents=True)
    (tmp_path / "packed" / "__init__.py").write_text("")
    (tmp_path / "packed" / "model" / "tokenizer.json").write_text(json.dumps({}))
    manifest = build(folder, tmp_path / "data", "packed")
    _check_vectors(tmp_path / "data", lambda title: np.array([len(title), len(title.split()), 1.0]))
    assert manifest.vectors["model"]["name"] == "packed"
