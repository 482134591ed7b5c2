"""An export of a model with request features: context in, the trained model's scores out."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing import test_pipeline

from export import client as clients
from export import (
    golden,
    native,
    requests,
    score_batch,
    signatures,
    verify,
    version_files,
    warmup,
)
from export.exporting import export
from export.options import ExportOptions
from export.requests import Request
from sitn_tf import beam_runner, runs, schema, trained_models
from tests.commands import run_main
from tests.export import batcher, test_fuzz, test_score_batch
from tests.export.serving_double import serve
from tests.export.small_run import write_small_run
from tests.small_dataset import example

FEATURES = (
    "model.request_features=hour,weekday,user,idle,source_length,target_length",
    "model.user_buckets=50",
)
MONDAY_NOON = 1_717_416_000

BARE = Request(("s2", "s3", "s9"), ("t5",), ("t2", "t3", "never seen", "t9"))
ASKED = [
    dataclasses.replace(BARE, request_time=time, user_id=user, history_time=last)
    for time, user, last in [
        (MONDAY_NOON, "u1", MONDAY_NOON - 60),
        (MONDAY_NOON + 3600, "u1", MONDAY_NOON + 3540),
        (MONDAY_NOON + 86_400, "u1", MONDAY_NOON + 86_340),
        (MONDAY_NOON, "Zoë", MONDAY_NOON - 60),
        (MONDAY_NOON, "u1", MONDAY_NOON - 86_400),
        (0, "", 0),
    ]
]
IDS = {"source_history": [2, 3, 9], "target_history": [5], "candidates": [2, 3, 1, 9]}


@pytest.fixture(scope="module")
def featured_run(tmp_path_factory):
    return write_small_run(tmp_path_factory.mktemp("featured_run"), *FEATURES)


@pytest.fixture(scope="module")
def featured(featured_run, tmp_path_factory):
    """A servable whose version 1 has all request features. Not to be changed."""
    folder = tmp_path_factory.mktemp("featured")
    export(featured_run, folder, ExportOptions(goldens=128))
    return folder


@pytest.fixture(scope="module")
def featured_session(featured):
    with native.Session(featured / "1") as opened:
        yield opened


def logits(session, rows):
    return session.run(signatures.SCORE, requests.score_inputs(rows))["logit"]


def test_context_is_an_input_of_two_signatures(featured_session, session):
    string, whole = 7, 9
    times = dict.fromkeys(("request_time", "history_time"), (whole, (-1,)))
    context = times | {"user_id": (string, (-1,))}
    for name, signature in featured_session.signatures.items():
        plain = session.signatures[name].inputs
        more = {n: (i.dtype, i.shape) for n, i in signature.inputs.items() if n not in plain}
        if name in (signatures.SCORE, signatures.ENCODE_USER):
            assert more == context
        else:
            assert set(more) <= {"request_features"}
    encoded = featured_session.signatures[signatures.ENCODE_USER].outputs
    assert encoded["request_features"].shape == (-1, 6, 8)


def test_metadata_and_goldens_have_the_context(featured):
    inputs = version_files.read_metadata(featured / "1")["signatures"]["score"]["inputs"]
    assert inputs["request_time"] == {"dtype": "int64", "shape": [None]}
    assert inputs["user_id"] == {"dtype": "string", "shape": [None]}
    asked = [g.request for g in golden.read(featured / "1")]
    assert any(r.request_time <= 0 for r in asked)
    assert any(r.user_id == "" for r in asked)
    assert len({r.request_time // 3600 % 24 for r in asked}) == 24
    assert any(r.history_time == schema.NO_HISTORY_TIME for r in asked)
    idle = [r.request_time - r.history_time for r in asked if r.history_time > 0]
    assert len({seconds.bit_length() for seconds in idle}) > 20
    recorded = dict(warmup.read(featured / "1"))
    assert set(recorded["score"]) >= {"request_time", "user_id", "history_time"}


def test_goldens_of_a_model_without_say_nothing_of_context(servable):
    first = (servable / "1" / golden.FILE).read_text().splitlines()[0]
    assert "request_time" not in first
    assert "user_id" not in first
    assert "history_time" not in first


def test_the_export_is_verified(featured, featured_run, capsys):
    run_main(verify, f"--servable={featured / '1'}", f"--run_dir={featured_run}")
    said = capsys.readouterr().out
    assert said.count("  ok") == 5
    assert "FAILED" not in said


@pytest.mark.parametrize(
    "settings",
    [
        ["model.name=din", "model.request_features=user"],
        [
            "model.name=mean_pool",
            "model.use_source=false",
            "model.request_features=weekday,hour",
        ],
        pytest.param(
            ["model.name=clsr", "model.use_source=false", "model.request_features=hour"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["sitn.target_attention=din", *FEATURES], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_model_is_served_as_trained(tmp_path, settings):
    run_dir = write_small_run(tmp_path, *settings, measured=False)
    made, _ = export(run_dir, tmp_path / "servable", ExportOptions(goldens=64))
    with native.Session(made) as opened:
        report = verify.replay_goldens(opened, made)
    assert all(difference.passes for difference in report.values())


def test_users_and_times_find_the_rows_of_training(featured_session, featured_run):
    scorer = trained_models.load_scorer(featured_run).scorer
    batch = {name: tf.constant([ids] * len(ASKED), tf.int64) for name, ids in IDS.items()}
    batch["request_time"] = tf.constant([r.request_time for r in ASKED], tf.int64)
    batch["history_time"] = tf.constant([r.history_time for r in ASKED], tf.int64)
    batch["user_id"] = tf.constant([r.user_id for r in ASKED])
    expected = scorer(batch).numpy()
    np.testing.assert_allclose(logits(featured_session, ASKED), expected, atol=2e-6)
    for candidate in expected.T:
        assert len(np.unique(candidate.round(4))) == len(ASKED)


def test_what_is_not_known_is_scored(featured_session):
    (unknown,) = logits(featured_session, ASKED[-1:])
    assert np.isfinite(unknown).all()
    for time in (-1, -(2**63)):
        asked = dataclasses.replace(BARE, request_time=time, user_id="", history_time=5)
        np.testing.assert_array_equal(logits(featured_session, [asked])[0], unknown)
    named = dataclasses.replace(
        BARE, request_time=2**63 - 1, user_id="\0" * 5000, history_time=-(2**63)
    )
    assert np.isfinite(logits(featured_session, [named])).all()
    serialized = [
        example(IDS),
        example({**IDS, "request_time": 0, "user_id": b"", "history_time": MONDAY_NOON}),
        example(
            {
                **IDS,
                "request_time": MONDAY_NOON,
                "user_id": b"u1",
                "history_time": MONDAY_NOON - 60,
            }
        ),
    ]
    found = featured_session.run("serving_default", {"examples": serialized})["logit"]
    known = logits(featured_session, ASKED[:1])[0]
    np.testing.assert_allclose(found, [unknown, unknown, known], atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_time": None}, "must feed a value"),
        ({"user_id": None}, "must feed a value"),
        ({"request_time": np.array([5, 5])}, "number of rows|Shapes of all inputs must match"),
        ({"user_id": np.array([["u1"]], object)}, "not compatible with expected shape"),
        ({"request_time": np.array([5.0])}, "int64"),
        ({"history_time": None}, "must feed a value"),
        ({"user_id": np.array([7])}, "string"),
    ],
)
def test_bad_context_is_an_invalid_argument(featured_session, change, message):
    changed = {**requests.score_inputs(ASKED[:1]), **change}
    inputs = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(native.InvalidArgumentError, match=message):
        featured_session.run(signatures.SCORE, inputs)


def test_an_encoded_user_keeps_its_context(featured_session):
    users = featured_session.run(signatures.ENCODE_USER, requests.user_inputs(ASKED))
    shown = requests.candidate_inputs([r.candidates for r in ASKED])
    found = featured_session.run(signatures.SCORE_ENCODED, {**users, **shown})["logit"]
    np.testing.assert_allclose(found, logits(featured_session, ASKED), atol=2e-6)


def test_calls_that_share_a_batch_of_the_server_score_as_they_did_alone(featured_session):
    wide = Request(("s4",) * 7, ("t4", "t5"), ("t4", "t5", "t6", "t7", "t8"), 5, "u9", 2)
    apart = [requests.score_inputs(rows) for rows in (ASKED[:1], ASKED[1:4], [wide])]
    merged = featured_session.run(signatures.SCORE, batcher.merge(apart))
    for inputs, together in zip(apart, batcher.split(merged, apart), strict=True):
        alone = featured_session.run(signatures.SCORE, inputs)["logit"]
        np.testing.assert_allclose(together["logit"][:, : alone.shape[1]], alone, atol=1e-5)


def test_fuzzed_requests(featured_session):
    test_fuzz.check(test_fuzz.fuzz(featured_session, seed=2, count=500), 500)


def test_batch_scores_equal_served_ones(featured, featured_run, featured_session, tmp_path):
    pattern = f"{runs.read_info(featured_run).data_dir}/{schema.shard_glob('stage2', 'test')}"
    with test_pipeline.TestPipeline(runner=beam_runner.LOCAL) as pipeline:
        output = str(tmp_path / "scores")
        score_batch.build(pipeline, str(featured / "1"), pattern, output, batch=7)
    found = test_score_batch.read(tmp_path, "scores")
    records = list(tf.data.TFRecordDataset(tf.io.gfile.glob(pattern)).as_numpy_iterator())
    served = featured_session.run(signatures.SERVING_DEFAULT, {"examples": records})["ctr"]
    assert len(found) == len(records)
    for serialized, scores in zip(records, served, strict=True):
        user = tf.train.Example.FromString(serialized).features.feature["user_id"]
        ctr = found[user.bytes_list.value[0]]["ctr"]
        np.testing.assert_allclose(ctr, scores[: len(ctr)], atol=1e-6)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_clients_send_context(featured, featured_session, protocol, capsys):
    with serve(featured / "1") as (_, addresses):
        ask = clients.make_client(protocol, addresses[protocol], deadline=5.0)
        expected = featured_session.run(signatures.SCORE, requests.score_inputs(ASKED))["ctr"]
        np.testing.assert_allclose(ask.score(ASKED), expected, atol=1e-6)
        users = ask.encode_user(ASKED)
        again = ask.score_encoded(users, [r.candidates for r in ASKED])
        np.testing.assert_allclose(again, expected, atol=1e-6)
        assert clients.check_golden(ask, featured / "1").passes
        ask.close()
        run_main(
            clients,
            f"--protocol={protocol}",
            f"--address={addresses[protocol]}",
            f"--source_history={','.join(BARE.source_history)}",
            f"--target_history={','.join(BARE.target_history)}",
            f"--candidates={','.join(BARE.candidates)}",
            f"--request_time={MONDAY_NOON}",
            "--user_id=u1",
            f"--history_time={MONDAY_NOON - 60}",
        )
    said = dict(line.split(maxsplit=1)[::-1] for line in capsys.readouterr().out.splitlines())
    found = [float(said[item]) for item in BARE.candidates]
    np.testing.assert_allclose(found, expected[0], atol=1e-6)


def test_a_request_without_context_among_others_is_not_known():
    inputs = requests.context_inputs([ASKED[0], BARE])
    assert inputs["request_time"].tolist() == [MONDAY_NOON, 0]
    assert inputs["user_id"].tolist() == ["u1", ""]
    assert inputs["history_time"].tolist() == [MONDAY_NOON - 60, 0]
    assert requests.context_inputs([BARE]) == {}
    assert list(requests.context_inputs([BARE], ["user_id"])) == ["user_id"]
    assert requests.context_inputs(ASKED, []) == {}


def test_versions_with_and_without_follow_each_other(featured_run, run_dir, servable, tmp_path):
    """Each is held to golden requests of a model with other inputs."""
    folder = shutil.copytree(servable, tmp_path / "servable")
    any_drift = ExportOptions(goldens=64, allow_drift=True)
    for number, run in enumerate([featured_run, run_dir], start=2):
        made, described = export(run, folder, any_drift)
        assert made.name == str(number)
        assert described["drift"]["version"] == number - 1
