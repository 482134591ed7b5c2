"""The signatures through the C++ loader: exact, indifferent to padding, closed to bad input."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import native, requests, signatures
from export.requests import Request
from sitn_tf import schema, trained_models
from tests.export import batcher
from tests.small_dataset import MAX_HISTORY, SOURCE_ITEMS, TARGET_ITEMS, example

SOURCE_IDS = [f"s{i}" for i in range(2, SOURCE_ITEMS)]
TARGET_IDS = [f"t{i}" for i in range(2, TARGET_ITEMS)]

REQUEST = Request(("s2", "s3", "s9"), ("t5",), ("t2", "t3", "never seen", "t9"))
EXAMPLE = {"source_history": [2, 3, 9], "target_history": [5], "candidates": [2, 3, 1, 9]}

some_requests = st.builds(
    Request,
    st.lists(st.sampled_from([*SOURCE_IDS, "unknown", "é"]), max_size=2 * MAX_HISTORY).map(tuple),
    st.lists(st.sampled_from([*TARGET_IDS, "unknown"]), max_size=2 * MAX_HISTORY).map(tuple),
    st.lists(st.sampled_from([*TARGET_IDS, "unknown"]), min_size=1, max_size=9).map(tuple),
)
through_the_pipe = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def scorer(run_dir):
    return trained_models.load_scorer(run_dir).scorer


def score(session, rows):
    """`ctr` of each request's own candidates."""
    found = session.run(signatures.SCORE, requests.score_inputs(rows))
    return requests.own_scores(found["ctr"], rows)


def raw_inputs(source, target, candidates):
    """Inputs of `score` whose every column counts."""
    tensors = {"source_history": source, "target_history": target, "candidates": candidates}
    inputs = {name: np.array(rows, dtype=object) for name, rows in tensors.items()}
    lengths = {
        requests.length_of(name): np.full(rows.shape[0], rows.shape[1], np.int64)
        for name, rows in inputs.items()
    }
    return inputs | lengths


def test_names_shapes_and_dtypes_are_as_documented(session):
    string, boolean, number, whole = 7, 10, 1, 9
    ids, length = (string, (-1, -1)), (whole, (-1,))
    histories = {
        "source_history": ids,
        "source_history_length": length,
        "target_history": ids,
        "target_history_length": length,
    }
    shown = {"candidates": ids, "candidates_length": length}
    taken = {
        name: {n: (i.dtype, i.shape) for n, i in signature.inputs.items()}
        for name, signature in session.signatures.items()
    }
    assert taken["score"] == histories | shown
    assert taken["encode_user"] == histories
    assert {n: i for n, i in taken["score_encoded"].items() if n in shown} == shown
    for name in ("serving_default", "score", "score_encoded"):
        assert {n: (i.dtype, i.shape) for n, i in session.signatures[name].outputs.items()} == {
            "ctr": (number, (-1, -1)),
            "logit": (number, (-1, -1)),
        }
    assert session.signatures["serving_default"].inputs["examples"].shape == (-1,)
    encoded = session.signatures["encode_user"].outputs
    assert encoded["source_keys"].shape == (-1, MAX_HISTORY, 2, 4)
    assert encoded["target_mask"].dtype == boolean
    assert {n: i for n, i in taken["score_encoded"].items() if n not in shown} == {
        n: (i.dtype, i.shape) for n, i in encoded.items()
    }


def test_score_is_the_sigmoid_of_the_trained_models_logits(session, scorer):
    ids = {name: tf.constant([values], tf.int64) for name, values in EXAMPLE.items()}
    expected = scorer(ids).numpy()[0]
    found = session.run("score", requests.score_inputs([REQUEST]))
    np.testing.assert_allclose(found["logit"][0], expected, atol=2e-6)
    np.testing.assert_allclose(found["ctr"][0], 1 / (1 + np.exp(-expected)), atol=1e-6)


def test_examples_parse_as_in_training_and_need_no_labels(session):
    direct = session.run("score", requests.score_inputs([REQUEST]))["ctr"]
    bare = example(EXAMPLE)
    whole = example({**EXAMPLE, "user_id": b"u", "request_time": 5, "history_time": 4,
                     "labels": [0, 1, 0, 0], "logged_scores": [0.5] * 4})  # fmt: skip
    found = session.run("serving_default", {"examples": [bare, whole]})["ctr"]
    np.testing.assert_allclose(found, np.repeat(direct, 2, axis=0), atol=1e-6)


def test_example_ids_of_another_vocabulary_are_out_of_vocabulary(session):
    def ctr(candidates, history):
        serialized = example(
            {"source_history": history, "target_history": [], "candidates": candidates}
        )
        return session.run("serving_default", {"examples": [serialized]})["ctr"]

    known = ctr([2, schema.OOV_ID], [3, schema.OOV_ID])
    np.testing.assert_array_equal(ctr([2, TARGET_ITEMS], [3, SOURCE_ITEMS]), known)
    np.testing.assert_array_equal(ctr([2, -7], [3, 2**62]), known)


def test_rows_of_examples_of_different_lengths(session):
    short = example({"source_history": [], "target_history": [], "candidates": [4]})
    found = session.run("serving_default", {"examples": [example(EXAMPLE), short]})
    assert found["ctr"].shape == (2, 4)
    assert (found["ctr"][1, 1:] == 0).all()
    assert (found["logit"][1, 1:] == np.float32(signatures.PAD_LOGIT)).all()


@through_the_pipe
@given(rows=st.lists(some_requests, min_size=1, max_size=4))
def test_a_request_scores_the_same_alone_and_in_a_batch(session, rows):
    together = score(session, rows)
    for row, found in zip(rows, together, strict=True):
        np.testing.assert_allclose(score(session, [row])[0], found, atol=1e-6)


@through_the_pipe
@given(row=some_requests, data=st.data())
def test_padding_anywhere_changes_nothing(session, row, data):
    def scattered(ids):
        gaps = data.draw(st.lists(st.integers(0, 2), min_size=len(ids) + 1, max_size=len(ids) + 1))
        out = []
        for gap, item in zip(gaps, [*ids, None], strict=True):
            out += [""] * gap + ([item] if item is not None else [])
        return [out or [""]]

    inputs = raw_inputs(
        scattered(row.source_history), scattered(row.target_history), scattered(row.candidates)
    )
    found = session.run("score", inputs)["ctr"][0]
    real = inputs["candidates"][0] != ""
    np.testing.assert_allclose(found[real], score(session, [row])[0], atol=1e-6)
    assert (found[~real] == 0).all()


@through_the_pipe
@given(row=some_requests)
def test_only_the_most_recent_items_count(session, row):
    cut = Request(
        row.source_history[-MAX_HISTORY:], row.target_history[-MAX_HISTORY:], row.candidates
    )
    np.testing.assert_array_equal(score(session, [row])[0], score(session, [cut])[0])


@through_the_pipe
@given(rows=st.lists(some_requests, min_size=1, max_size=4))
def test_encoded_and_direct_paths_agree(session, rows):
    user = session.run("encode_user", requests.user_inputs(rows))
    shown = requests.candidate_inputs([r.candidates for r in rows])
    found = session.run("score_encoded", {**user, **shown})["ctr"]
    direct = session.run("score", requests.score_inputs(rows))["ctr"]
    np.testing.assert_allclose(found, direct, atol=1e-6)


def test_users_encoded_apart_are_scored_together(session):
    other = Request((), ("t2", "t3"), ("t4", "t5", "t6", "t7"))
    parts = [session.run("encode_user", requests.user_inputs([r])) for r in (REQUEST, other)]
    together = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    shown = requests.candidate_inputs([REQUEST.candidates, other.candidates])
    found = session.run("score_encoded", {**together, **shown})["ctr"]
    np.testing.assert_allclose(found, score(session, [REQUEST, other]), atol=1e-6)


@through_the_pipe
@given(calls=st.lists(st.lists(some_requests, min_size=1, max_size=3), min_size=2, max_size=4))
def test_calls_that_share_a_batch_of_the_server_score_as_they_did_alone(session, calls):
    """Histories that begin and end with one id, and calls of several rows, included."""
    apart = [requests.score_inputs(rows) for rows in calls]
    found = batcher.split(session.run("score", batcher.merge(apart)), apart)
    for rows, inputs, together in zip(calls, apart, found, strict=True):
        alone = session.run("score", inputs)
        for name in ("ctr", "logit"):
            expected = requests.own_scores(alone[name], rows)
            own = requests.own_scores(together[name], rows)
            np.testing.assert_allclose(np.concatenate(own), np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("item", ["s2", ""])
def test_no_padding_of_the_batcher_counts_as_a_click(session, item):
    """The batcher's own padding, and the worst case for a server that guessed at lengths."""
    loop = Request((item, "s3", item), ("t2",) * 3, ("t2", "t3"))
    wide = Request(("s4",) * 7, ("t4", "t5", "t6", "t7"), ("t4", "t5", "t6", "t7", "t8"))
    apart = [requests.score_inputs([r]) for r in (loop, wide)]
    merged = batcher.merge(apart)
    assert (merged["source_history"][0] == [item, "s3", *[item] * 5]).all()
    found = session.run("score", merged)
    np.testing.assert_allclose(found["ctr"][0, :2], score(session, [loop])[0], atol=1e-6)
    assert (found["ctr"][0, 2:] == 0).all()
    assert (found["logit"][0, 2:] == np.float32(signatures.PAD_LOGIT)).all()


@through_the_pipe
@given(rows=st.lists(some_requests, min_size=2, max_size=3))
def test_users_and_examples_that_share_a_batch_are_encoded_as_alone(session, servable, rows):
    apart = [requests.user_inputs([r]) for r in rows]
    users = batcher.split(session.run("encode_user", batcher.merge(apart)), apart)
    shown = [requests.candidate_inputs([r.candidates]) for r in rows]
    scored = [{**user, **own} for user, own in zip(users, shown, strict=True)]
    by_user = batcher.split(session.run("score_encoded", batcher.merge(scored)), scored)
    known = {
        domain: requests.read_vocabulary(servable / "1/assets" / f"{domain}.item.txt")
        for domain in schema.DOMAINS
    }
    examples = [requests.example_inputs([r], known) for r in rows]
    by_example = batcher.split(session.run("serving_default", batcher.merge(examples)), examples)
    for row, *found in zip(rows, by_user, by_example, strict=True):
        expected = score(session, [row])[0]
        for outputs in found:
            own = outputs["ctr"][0, : len(row.candidates)]
            np.testing.assert_allclose(own, expected, atol=1e-6)


def test_the_clients_inputs_are_never_empty_tensors():
    """TF Serving's batcher refuses to pad those, and the whole batch with them."""
    nobody = Request((), (), ("t2",))
    batcher.merge([requests.score_inputs([r]) for r in (nobody, REQUEST)])
    with pytest.raises(ValueError, match="Got empty tensor"):
        batcher.merge([raw_inputs([[]], [[]], [["t2"]]), requests.score_inputs([REQUEST])])


@pytest.mark.parametrize("name", ["source_history", "target_history", "candidates"])
@pytest.mark.parametrize("length", [-1, 5, 2**62])
def test_a_length_outside_its_row_is_refused(session, name, length):
    inputs = requests.score_inputs([REQUEST])
    inputs[requests.length_of(name)] = np.array([length])
    with pytest.raises(
        native.InvalidArgumentError, match=f"{name}_length is not within 0 and the width of {name}"
    ):
        session.run("score", inputs)


def test_no_rows_and_no_candidates(session):
    empty = np.zeros((0, 3), dtype=object)
    assert session.run("score", raw_inputs(empty, empty, empty))["ctr"].shape == (0, 3)
    none = np.zeros((2, 0), dtype=object)
    assert session.run("score", raw_inputs(none, none, none))["ctr"].shape == (2, 0)
    assert session.run("serving_default", {"examples": np.zeros(0, object)})["ctr"].size == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_history": np.array(["s2"], dtype=object)}, "not compatible with expected shape"),
        ({"source_history": np.array([["s2"]] * 3, dtype=object)}, "number of rows"),
        ({"candidates_length": np.array([4, 4])}, "number of rows"),
        ({"candidates_length": np.array([[4]])}, "not compatible with expected shape"),
        ({"candidates_length": np.array([4.0])}, "int64"),
        ({"candidates": np.zeros((1, 4), np.int64)}, "string"),
        ({"candidates": np.full((1, 2, 2), "t2", dtype=object)}, "not compatible with expected"),
        ({"candidates": np.full((1, 2001), "t2", dtype=object)}, "more than 2000 candidates"),
        ({"candidates_length": None}, "must feed a value"),
    ],
)
def test_bad_inputs_are_invalid_arguments(session, change, message):
    changed = {**requests.score_inputs([REQUEST]), **change}
    inputs = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(native.InvalidArgumentError, match=message):
        session.run("score", inputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_numbers_that_are_not_finite_are_refused(session, value):
    user = session.run("encode_user", requests.user_inputs([REQUEST]))
    user["source_values"] = np.full_like(user["source_values"], value)
    shown = requests.candidate_inputs([REQUEST.candidates])
    with pytest.raises(native.InvalidArgumentError, match="is not finite"):
        session.run("score_encoded", {**user, **shown})


def test_an_encoded_user_of_another_model_is_refused(session):
    user = session.run("encode_user", requests.user_inputs([REQUEST]))
    user["target_mask"] = user["target_mask"][:, :-1]
    shown = requests.candidate_inputs([REQUEST.candidates])
    with pytest.raises(native.InvalidArgumentError, match="not compatible with expected shape"):
        session.run("score_encoded", {**user, **shown})


def test_a_user_encoded_by_another_version_is_refused(session, other_servable):
    """A cached user that outlives a hot swap would be scored by weights it does not fit."""
    with native.Session(other_servable / "1") as other:
        user = other.run("encode_user", requests.user_inputs([REQUEST]))
    shown = requests.candidate_inputs([REQUEST.candidates])
    with pytest.raises(native.InvalidArgumentError, match="encoded by another version: encode it"):
        session.run("score_encoded", {**user, **shown})


def test_a_fingerprint_is_of_item_vectors_and_of_weights():
    """Or a cached user would be scored with items, or by a head, of another training."""

    def fingerprint(vector, weight, scalar):
        digest = hashlib.sha256()
        rows = np.full([2, 3], vector, np.float32)
        passed = list(signatures._hashed([rows, rows[:1]], digest))
        assert [part.shape for part in passed] == [(2, 3), (1, 3)]
        weights = [tf.Variable(tf.fill([9000], weight)), tf.Variable(scalar)]
        weights[0][-1].assign(0.5)
        return signatures._fingerprint(digest, weights)

    first = fingerprint(1.0, 2.0, 3.0)
    assert fingerprint(1.0, 2.0, 3.0) == first
    assert 0 <= first < 2**63
    others = {fingerprint(1.5, 2.0, 3.0), fingerprint(1.0, 2.5, 3.0), fingerprint(1.0, 2.0, 3.5)}
    assert len(others | {first}) == 4


def test_only_what_serving_reads_is_saved(servable, scorer):
    """One folded table a domain in place of its items' embeddings, and no optimiser."""
    saved = dict(tf.train.list_variables(str(servable / "1/variables/variables")))
    saved.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    items = {id(v) for part in scorer.items.values() for v in part.variables}
    items.add(id(scorer.popularity.fit))
    wanted = [tuple(v.shape) for v in scorer.variables if id(v) not in items]
    wanted += [(SOURCE_ITEMS, scorer.config.model.embedding_dim), (TARGET_ITEMS, 8)]
    wanted.append((TARGET_ITEMS,))  # what popularity adds
    assert sorted(map(tuple, saved.values())) == sorted(wanted)
    assert not (servable / "1/keras_metadata.pb").exists()
