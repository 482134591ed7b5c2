"""A model that reads when clicks were, exported and served (its graph: test_click_times.py)."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from export import client as clients
from export import golden, native, requests, score_batch, signatures, verify, version_files
from export.exporting import export
from export.options import ExportOptions
from export.requests import Request
from sitn_tf import runs, schema, trained_models
from sitn_tf.errors import InputError
from tests.commands import run_main
from tests.export import batcher, test_fuzz
from tests.export.serving_double import serve
from tests.export.small_run import write_small_run
from tests.export.test_click_times import ASKED, NOON, OLDER, TIMES
from tests.small_dataset import example, write_small_dataset

pytestmark = pytest.mark.slow

IDS = {"source_history": [2, 3, 9], "target_history": [5], "candidates": [2, 3, 1, 9]}


@pytest.fixture(scope="module")
def aged_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aged_run")
    data_dir = write_small_dataset(folder / "dataset", click_times=True)
    return write_small_run(folder, "encoder.ages=true", dataset=data_dir)


@pytest.fixture(scope="module")
def aged(aged_run, tmp_path_factory):
    """A version whose model reads times of clicks. Not to be changed."""
    version, _ = export(aged_run, tmp_path_factory.mktemp("aged"), ExportOptions(goldens=128))
    return version


@pytest.fixture(scope="module")
def aged_session(aged):
    with native.Session(aged) as opened:
        yield opened


def logits(session, rows):
    return session.run(signatures.SCORE, requests.score_inputs(rows))["logit"]


def test_times_are_inputs_of_two_signatures(aged_session, session):
    whole = 9
    for name, signature in aged_session.signatures.items():
        plain = session.signatures[name].inputs
        more = {n: (i.dtype, i.shape) for n, i in signature.inputs.items() if n not in plain}
        timed = name in (signatures.SCORE, signatures.ENCODE_USER)
        expected = dict.fromkeys(TIMES, (whole, (-1, -1))) | {"request_time": (whole, (-1,))}
        assert more == (expected if timed else {})


def test_every_signature_scores_golden_requests_as_the_trained_model(aged, aged_session):
    """Some histories are longer than `max_history`: times are cut as ids are."""
    report = verify.replay_goldens(aged_session, aged)
    assert len(report) == 4
    assert all(difference.passes for difference in report.values())
    asked = [g.request for g in golden.read(aged)]
    assert all(len(r.source_times) == len(r.source_history) for r in asked)
    assert any(schema.NO_HISTORY_TIME in r.target_times for r in asked)
    assert verify.replay_warmup(aged_session, aged) > 0


def test_ages_are_those_of_training(aged_session, aged_run):
    scorer = trained_models.load_scorer(aged_run).scorer
    batch = {name: tf.constant([ids] * 2, tf.int64) for name, ids in IDS.items()}
    for name in TIMES:
        batch[name] = tf.constant([getattr(r, name) for r in (ASKED, OLDER)], tf.int64)
    batch["request_time"] = tf.constant([NOON, NOON], tf.int64)
    served = logits(aged_session, [ASKED, OLDER])
    np.testing.assert_allclose(served, scorer(batch), atol=2e-6)
    assert np.abs(served[0] - served[1]).max() > 1e-3
    record = {**IDS, **TIMES, "request_time": NOON}
    by_ids = aged_session.run("serving_default", {"examples": [example(record)]})["logit"]
    np.testing.assert_allclose(by_ids[0], served[0], atol=2e-6)


def test_the_time_of_what_is_no_item_goes_with_it(aged_session):
    inputs = requests.score_inputs([ASKED])
    wider = {
        "source_history": np.array([["", "s2", "", "s3", "s9", "s4"]], object),
        "source_times": np.array([[NOON - 7, TIMES["source_times"][0], 5,
                                   *TIMES["source_times"][1:], NOON]]),
        "source_history_length": np.array([5]),
    }  # fmt: skip
    expected = aged_session.run(signatures.SCORE, inputs)["logit"]
    found = aged_session.run(signatures.SCORE, {**inputs, **wider})["logit"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_only_how_long_before_the_request_counts(aged_session):
    def later(request, seconds):
        moved = {n: tuple(t and t + seconds for t in getattr(request, n)) for n in TIMES}
        return dataclasses.replace(request, request_time=NOON + seconds, **moved)

    shifted = logits(aged_session, [later(ASKED, 10**8)])
    np.testing.assert_allclose(shifted, logits(aged_session, [ASKED]), atol=1e-5)
    unknown = logits(aged_session, [dataclasses.replace(ASKED, request_time=0)])
    untimed = dataclasses.replace(ASKED, source_times=(0, -1, -(2**63)), target_times=(2**63 - 1,))
    np.testing.assert_allclose(logits(aged_session, [untimed]), unknown, atol=1e-6)


def test_calls_that_share_a_batch_of_the_server_score_as_they_did_alone(aged_session):
    wide = Request(("s4",) * 7, ("t4", "t5"), ("t4", "t5"), 5, None, None, (1,) * 7, (2, 3))
    apart = [requests.score_inputs(rows) for rows in ([ASKED], [OLDER, ASKED], [wide])]
    merged = aged_session.run(signatures.SCORE, batcher.merge(apart))
    for inputs, together in zip(apart, batcher.split(merged, apart), strict=True):
        alone = aged_session.run(signatures.SCORE, inputs)["logit"]
        np.testing.assert_allclose(together["logit"][:, : alone.shape[1]], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_times": None}, "must feed a value"),
        ({"request_time": None}, "must feed a value"),
        ({"source_times": np.array([[5, 6]])}, "source_times has not a time for each item of so"),
        ({"target_times": np.array([[5], [5]])}, "not a time for each|number of rows"),
        ({"target_times": np.array([5])}, "not compatible with expected shape"),
        ({"target_times": np.array([[5.0]])}, "int64"),
    ],
)
def test_bad_times_are_an_invalid_argument(aged_session, change, message):
    changed = {**requests.score_inputs([ASKED]), **change}
    inputs = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(native.InvalidArgumentError, match=message):
        aged_session.run(signatures.SCORE, inputs)


def test_an_example_without_times_is_an_invalid_argument(aged_session):
    with pytest.raises(native.InvalidArgumentError, match="source_times has not a time for each"):
        aged_session.run("serving_default", {"examples": [example({**IDS, "request_time": NOON})]})


def test_fuzzed_requests(aged_session):
    test_fuzz.check(test_fuzz.fuzz(aged_session, seed=3, count=200), 200)


def test_records_without_times_are_refused_before_the_job(aged, run_dir, aged_run, tmp_path):
    def records_of(run):
        pattern = f"{runs.read_info(run).data_dir}/{schema.shard_glob(schema.STAGE2, schema.TEST)}"
        return tf.io.gfile.glob(pattern)[0]

    score_batch.check_records(records_of(aged_run), str(aged))
    with pytest.raises(InputError, match=r"no stage-2 records of a data set built with --click_t"):
        score_batch.check_records(records_of(run_dir), str(aged))
    wanted = version_files.read_metadata(aged)["signatures"]["score"]["inputs"]
    assert wanted["source_times"] == {"dtype": "int64", "shape": [None, None]}


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_clients_send_times(aged, aged_session, protocol, capsys):
    with serve(aged) as (_, addresses):
        ask = clients.make_client(protocol, addresses[protocol], deadline=5.0)
        asked = [ASKED, OLDER]
        expected = aged_session.run(signatures.SCORE, requests.score_inputs(asked))["ctr"]
        np.testing.assert_allclose(ask.score(asked), expected, atol=1e-6)
        users = ask.encode_user(asked)
        again = ask.score_encoded(users, [r.candidates for r in asked])
        np.testing.assert_allclose(again, expected, atol=1e-6)
        assert clients.check_golden(ask, aged).passes
        ask.close()
        command = [
            f"--protocol={protocol}",
            f"--address={addresses[protocol]}",
            f"--source_history={','.join(ASKED.source_history)}",
            f"--target_history={','.join(ASKED.target_history)}",
            f"--candidates={','.join(ASKED.candidates)}",
            f"--request_time={NOON}",
            "--deadline=60",
        ]
        times = [f"--{name}={','.join(map(str, values))}" for name, values in TIMES.items()]
        run_main(clients, *command, *times)
        said = dict(line.split(maxsplit=1)[::-1] for line in capsys.readouterr().out.splitlines())
        with pytest.raises(InputError, match=r"score takes .*source_times") as refused:
            run_main(clients, *command)
        assert refused.value.remedy == "give --source_times=VALUE and --target_times=VALUE"
        with pytest.raises(InputError, match="--source_times=now is not a list of Unix seconds"):
            run_main(clients, *command, "--source_times=now")
    found = [float(said[item]) for item in ASKED.candidates]
    np.testing.assert_allclose(found, expected[0], atol=1e-6)
