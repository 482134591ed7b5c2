"""One vocabulary and one table of each side feature for both domains, from files to an export."""

import numpy as np
import pytest
import tensorflow as tf

from export.item_vectors import fold
from sitn_tf import config, data, runs, schema, trained_models
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.training import dry_run, stage2
from tests.export.small_run import write_small_run
from tests.sitn_tf.models.apart import encode_and_score
from tests.sitn_tf.models.made import made
from tests.small_dataset import TARGET_ITEMS, write_small_dataset

APART = config.override(config.tiny(), ["items.shared_side_features=false"])
TARGET_WORDS = ["word3", "new\u2028one", "word2", "word5"]
"""Ids 2 to 5 of the target; the source's are word2 to word5."""
JOINED_WORDS = np.array([0, 1, 3, 6, 2, 5])
JOINED_BRANDS = np.array([0, 1, 3, 4])


@pytest.fixture(scope="module")
def two_vocabularies(tmp_path_factory):
    folder = write_small_dataset(tmp_path_factory.mktemp("two_vocabularies"))
    for feature, tokens in ((schema.TITLE_WORDS, TARGET_WORDS), ("brand", ["odd", "neither"])):
        path = folder / schema.vocabulary_path(schema.TARGET, feature)
        path.write_bytes("".join(f"{token}\n" for token in tokens).encode())
    return folder


def _shared(model):
    return [v for v in model.trainable_variables if v.name.startswith("shared_items/")]


def test_the_sources_ids_stay_and_the_targets_follow(two_vocabularies):
    manifest = schema.read_manifest(two_vocabularies)
    own = runs.read_tables(two_vocabularies, manifest, APART)
    shared = runs.read_tables(two_vocabularies, manifest, config.tiny())
    for domain, table in shared.items():
        assert not own[domain].shared
        assert table.shared == {schema.TITLE_WORDS, "brand"}
        assert table.vocabulary_sizes == {schema.TITLE_WORDS: 7, "brand": 5}
    for name, joined in ((schema.TITLE_WORDS, JOINED_WORDS), ("brand", JOINED_BRANDS)):
        source, target = (shared[domain].features[name] for domain in schema.DOMAINS)
        assert target.dtype == np.int32
        np.testing.assert_array_equal(source, own[schema.SOURCE].features[name])
        np.testing.assert_array_equal(target, joined[own[schema.TARGET].features[name]])


@pytest.mark.parametrize("damage", ["missing", "short", "twice", "not text"])
def test_a_damaged_vocabulary_is_named(tmp_path, damage):
    data_dir = write_small_dataset(tmp_path)
    path = data_dir / schema.vocabulary_path(schema.SOURCE, "brand")
    path.unlink()
    content = {"short": b"even\n", "twice": b"odd\nodd\n", "not text": b"\xff\n\xfe\n"}
    if damage in content:
        path.write_bytes(content[damage])
    with pytest.raises(InputError, match=r"source\.brand\.txt can't be read .*build the data set"):
        made(make_scorer, data_dir)


def test_an_items_vector_is_from_the_one_table(two_vocabularies):
    scorer = made(make_scorer, two_vocabularies)
    tables = scorer.items[schema.SOURCE].shared
    assert scorer.items[schema.TARGET].shared is tables
    words, brands = tables.of[schema.TITLE_WORDS].numpy(), tables.of["brand"].numpy()
    manifest = schema.read_manifest(two_vocabularies)
    raw = runs.read_tables(two_vocabularies, manifest, APART)[schema.TARGET]
    for item in range(2, TARGET_ITEMS):
        expected = scorer.items[schema.TARGET].ids.numpy()[item]
        expected = expected + brands[JOINED_BRANDS[raw.features["brand"][item]]]
        rows = [words[JOINED_WORDS[w]] for w in raw.features[schema.TITLE_WORDS][item] if w]
        expected = expected + (np.mean(rows, axis=0) if rows else 0.0)
        vector = scorer.item_vectors(schema.TARGET, tf.constant([item], tf.int64)).numpy()[0]
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


def test_a_shared_table_is_one_variable(two_vocabularies):
    for make in (make_scorer, make_pretrainer):
        model = made(make, two_vocabularies)
        assert sorted(v.shape[0] for v in _shared(model)) == [5, 7]
        for variables in (model.trainable_variables, model.variables):
            assert len(variables) == len({id(v) for v in variables})
    scorer = made(make_scorer, two_vocabularies)
    handed = scorer.variables_of(["items"])
    assert len(handed) == len({id(v) for v in handed}) == 4
    described = dry_run.describe(config.tiny(), schema.STAGE2, two_vocabularies, "none")
    assert described.count("shared_items/") == 2
    assert not any(f"{d}_items/brand:0" in described for d in schema.DOMAINS)


@pytest.mark.parametrize("model", ["sitn", "din", "deepfm", "sitn,model.precision=bfloat16"])
def test_a_model_trains_it_from_both_domains(two_vocabularies, model):
    changes = f"model.name={model},model.use_source=true".split(",")
    scorer = made(make_scorer, two_vocabularies, *changes)
    batch = next(iter(data.read_split(two_vocabularies, schema.STAGE2, schema.TRAIN, 12)))
    with tf.GradientTape() as tape:
        loss = stage2.mean_click_loss(scorer(batch, training=True), batch)
    [brand] = [v for v in _shared(scorer) if "brand" in v.name]
    moved = np.abs(tf.convert_to_tensor(tape.gradient(loss, brand))).max(axis=1) > 0
    # even is the source's alone, odd is both's, neither is the target's
    assert set(moved.nonzero()[0]) == {2, 3, 4}
    if scorer.config.model.precision == "float32":
        np.testing.assert_allclose(scorer(batch), encode_and_score(scorer, batch), atol=1e-5)


def test_an_export_folds_it_away(two_vocabularies, tmp_path):
    scorer = trained_models.load_scorer(write_small_run(tmp_path, dataset=two_vocabularies)).scorer
    assert scorer.items[schema.TARGET].table.vocabulary_sizes["brand"] == 5
    ids = tf.range(TARGET_ITEMS, dtype=tf.int64)
    np.testing.assert_allclose(
        np.concatenate(list(fold(scorer)[schema.TARGET])),
        scorer.item_vectors(schema.TARGET, ids),
        atol=1e-6,
    )
