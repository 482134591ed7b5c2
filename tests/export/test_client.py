"""The clients against a stand-in that speaks TF Serving's protocols."""

import contextlib
import dataclasses
import json
import pathlib
import re
import threading
import urllib.request
from concurrent import futures

import numpy as np
import pytest

from export import client as clients
from export import golden, requests, serving_client, warmup
from export.exporting import export
from export.options import ExportOptions
from export.requests import Request
from sitn_tf.errors import InputError
from tests.commands import run_main
from tests.export.serving_double import serve
from tests.export.small_run import write_small_run

REQUEST = Request(("s2", "s3"), (), ("t2", "t9", "never seen"))
OTHER = Request((), ("t4",), ("t3",))


@pytest.fixture(params=["grpc", "rest"])
def protocol(request):
    return request.param


@pytest.fixture(scope="module")
def served(servable):
    with serve(servable / "1") as started:
        yield started


@pytest.fixture
def ask(served, protocol):
    double, addresses = served
    double.failures, double.delay, double.calls = 0, 0.0, 0
    made = clients.make_client(protocol, addresses[protocol], deadline=5.0)
    yield made
    made.close()


def test_every_signature_answers(ask, session):
    expected = session.run("score", requests.score_inputs([REQUEST, OTHER]))["ctr"]
    found = ask.score([REQUEST, OTHER])
    assert [len(row) for row in found] == [3, 1]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    users = ask.encode_user([REQUEST, OTHER])
    again = ask.score_encoded(users, [REQUEST.candidates, OTHER.candidates])
    np.testing.assert_allclose(np.concatenate(again), np.concatenate(found), atol=1e-6)


def test_the_request_of_the_readme_is_answered(served, session):
    readme = pathlib.Path(clients.__file__).with_name("serving") / "README.md"
    (body,) = re.findall(
        r"curl localhost:8501/v1/models/sitn:predict -d '(.*?)'", readme.read_text(), re.S
    )
    url = f"http://{served[1]['rest']}/v1/models/sitn:predict"
    with urllib.request.urlopen(url, body.encode(), timeout=5) as answer:
        ctr = json.load(answer)["outputs"]["ctr"]
    asked = Request(("s5", "s9"), (), ("t3", "t4", "t8"))
    expected = session.run("score", requests.score_inputs([asked]))["ctr"]
    np.testing.assert_allclose(ctr, expected, atol=1e-6)


def test_golden_requests_are_answered_as_at_export(ask, servable):
    assert clients.check_golden(ask, servable / "1").passes


def test_an_unavailable_server_is_asked_again(ask, served):
    served[0].failures = 2
    assert len(ask.score([REQUEST])[0]) == 3
    assert served[0].calls == 3


def test_a_refused_request_is_not_asked_again(ask, served):
    bad = requests.score_inputs([REQUEST]) | requests.candidate_inputs([["t2"] * 2001])
    with pytest.raises(serving_client.ServerError, match="more than 2000 candidates") as refused:
        ask.predict("score", bad)
    assert refused.value.status in ("INVALID_ARGUMENT", "HTTP 400")
    assert served[0].calls == 1


def test_the_deadline_holds_over_all_tries(ask, served):
    ask.deadline = 0.2
    served[0].failures = 1000
    with pytest.raises(serving_client.DeadlineExceededError, match=r"no answer in 0\.2 s"):
        ask.score([REQUEST])
    served[0].failures, served[0].delay = 0, 0.5
    with pytest.raises(serving_client.DeadlineExceededError):
        ask.score([REQUEST])
    served[0].delay, ask.deadline = 0.0, 5.0
    assert len(ask.score([REQUEST])[0]) == 3


def test_load_counts_answers_and_errors(ask, served, servable):
    asked = [g.request for g in golden.read(servable / "1")]
    report = clients.run_load(ask, asked, total=60, threads=4)
    assert len(report.latency_ms) == 60
    assert not report.errors
    assert "requests/s, p50" in str(report)
    ask.deadline, served[0].failures = 0.05, 10_000
    assert clients.run_load(ask, asked, 4, 2).errors == {"DEADLINE_EXCEEDED": 4}


def test_the_command_scores_and_names_a_server_that_is_not_there(
    served, protocol, servable, capsys
):
    served[0].failures, served[0].delay = 0, 0.0
    asked = ["--source_history=s2,s3", "--candidates=t2,t9"]
    here, away = f"--address={served[1][protocol]}", "--address=localhost:1"
    assert run_main(clients, f"--protocol={protocol}", here, *asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert {line.split()[1] for line in lines} == {"t2", "t9"}
    golden_flag = f"--golden={servable / '1'}"
    assert run_main(clients, f"--protocol={protocol}", here, golden_flag, "--deadline=9") == 0
    assert capsys.readouterr().out.strip().endswith("of log-odds  ok")
    with pytest.raises(
        InputError, match=r"localhost:1 did not answer .* there, with the model 'sitn'"
    ):
        run_main(clients, f"--protocol={protocol}", away, *asked)


def test_pauses_grow_and_stay_within_the_deadline():
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    def attempt(left):
        assert left > 0
        raise serving_client.ServerError("UNAVAILABLE", "away", retryable=True)

    with pytest.raises(serving_client.DeadlineExceededError, match="UNAVAILABLE: away"):
        serving_client.with_retries(attempt, 3.0, lambda: now[0], sleep)
    assert now[0] == pytest.approx(3.0)
    assert pauses[0] <= serving_client.FIRST_PAUSE
    assert serving_client.LONGEST_PAUSE / 2 <= max(pauses) <= serving_client.LONGEST_PAUSE


# ---- what is not sent ----


def test_no_requests_are_answered_without_a_server(ask, served):
    assert ask.score([]) == []
    assert ask.encode_user([]) == []
    assert ask.score_encoded([], []) == []
    assert served[0].calls == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": np.array(["t2"], object)}, r"candidates has shape \[1\]: give it 2"),
        ({"candidates": np.array([[["t2"]]], object)}, r"candidates has shape \[1, 1, 1\]"),
        (
            {"candidates_length": np.array([[1]])},
            r"candidates_length has shape \[1, 1\]: give it 1",
        ),
        ({"candidates_length": np.array([1, 1])}, "inputs differ in their number of rows"),
    ],
)
def test_what_a_server_cannot_take_is_not_sent(ask, served, change, message):
    with pytest.raises(InputError, match=message):
        ask.predict("score", requests.score_inputs([REQUEST]) | change)
    assert served[0].calls == 0


def test_calls_of_no_rows_or_too_many_are_not_sent(ask, served):
    with pytest.raises(InputError, match="a call of no rows: send one row at least"):
        ask.predict("score", requests.score_inputs([]))
    with pytest.raises(InputError, match="a call of 129 rows, the most is 128: send several"):
        ask.score([REQUEST] * 129)
    assert served[0].calls == 0
    ask.max_rows = None
    assert len(ask.score([REQUEST] * 129)) == 129
    assert warmup.BATCH_SIZES[-1] == serving_client.MAX_ROWS


# ---- batching ----


def test_calls_that_are_merged_are_answered_as_alone(servable, session):
    alone = session.run("score", requests.score_inputs([REQUEST]))["ctr"][0]
    with serve(servable / "1", batching=True) as (double, addresses):
        ask = clients.make_client("grpc", addresses["grpc"], deadline=9.0)
        with futures.ThreadPoolExecutor(6) as pool:
            found = list(pool.map(ask.score, [[REQUEST], [OTHER]] * 12))
        ask.close()
    for scores in found[::2]:
        np.testing.assert_allclose(scores[0], alone, atol=1e-6)
    assert max(double.batches) > 1


@pytest.mark.parametrize("name", ["candidates", "candidates_length"])
def test_one_malformed_request_ends_a_batching_server_and_the_client_sends_none(
    servable, name, monkeypatch
):
    bad = requests.score_inputs([REQUEST])
    bad[name] = bad[name][np.newaxis]
    with serve(servable / "1", batching=True) as (double, addresses):
        patient = clients.make_client("grpc", addresses["grpc"], deadline=20.0)
        with contextlib.closing(patient):
            with pytest.raises(InputError, match=rf"{name} has shape"):
                patient.predict("score", bad)
            assert len(patient.score([REQUEST])) == 1
        ask = clients.make_client("grpc", addresses["grpc"], deadline=2.0)
        # Another client's, that does not look: it takes the good one's answer with it.
        monkeypatch.setattr(serving_client, "check_sendable", lambda *_: None)
        with futures.ThreadPoolExecutor(2) as pool:
            both = [
                pool.submit(ask.predict, "score", inputs)
                for inputs in (bad, requests.score_inputs([REQUEST]))
            ]
        assert double.dead
        for one in both:
            assert isinstance(one.exception(), serving_client.DeadlineExceededError)
            assert "UNAVAILABLE" in str(one.exception())
        ask.close()


def test_a_call_of_no_rows_is_never_scheduled(servable, monkeypatch):
    with serve(servable / "1", batching=True) as (double, addresses):
        ask = clients.make_client("grpc", addresses["grpc"], deadline=0.5)
        assert ask.score([]) == []
        monkeypatch.setattr(serving_client, "check_sendable", lambda *_: None)
        with pytest.raises(serving_client.DeadlineExceededError):
            ask.predict("score", requests.score_inputs([]))
        with pytest.raises(serving_client.DeadlineExceededError, match="UNAVAILABLE"):
            ask.score([REQUEST])  # merged with the one that still waits
        assert double.dead
        ask.close()


# ---- versions ----


@pytest.fixture
def swapping(servable, other_servable):
    """A double that serves version 1, and the directories of which the others are made."""
    with serve(servable / "1") as (double, addresses):
        yield double, addresses, [servable / "1", other_servable / "1"]


def test_users_encoded_ahead_ask_the_version_that_encoded_them(swapping, protocol):
    double, addresses, models = swapping
    ask = clients.make_client(protocol, addresses[protocol], deadline=9.0)
    old, other = ask.encode_user([REQUEST, OTHER])
    assert old.encoding.version == 1
    shown = [REQUEST.candidates, OTHER.candidates]
    before = ask.score_encoded([old, other], shown)
    double.load(models[1], number=2)
    (new,) = ask.encode_user([REQUEST])
    assert new.encoding.version == 2
    both = ask.score_encoded([old, other, new], [*shown, REQUEST.candidates])
    np.testing.assert_allclose(both[0], before[0], atol=1e-6)
    np.testing.assert_allclose(both[1], before[1], atol=1e-6)
    np.testing.assert_allclose(both[2], ask.score([REQUEST])[0], atol=1e-6)
    assert np.abs(both[2] - both[0]).max() > 1e-3

    double.load(models[0], number=3)  # and version 1 goes
    again = ask.score_encoded([old, new], [REQUEST.candidates] * 2)
    assert (old.encoding.version, new.encoding.version) == (3, 2)
    np.testing.assert_allclose(again[0], before[0], atol=1e-6)
    np.testing.assert_allclose(again[1], both[2], atol=1e-6)
    ask.close()


def test_a_version_number_given_twice_is_noticed(swapping, protocol):
    double, addresses, models = swapping
    ask = clients.make_client(protocol, addresses[protocol], deadline=9.0)
    (user,) = ask.encode_user([REQUEST])
    before = user.encoding
    double.load(models[1], number=1)
    (scores,) = ask.score_encoded([user], [REQUEST.candidates])
    assert user.encoding is not before
    np.testing.assert_allclose(scores, ask.score([REQUEST])[0], atol=1e-6)
    ask.close()


@pytest.mark.parametrize(
    "protocol", ["grpc", pytest.param("rest", marks=pytest.mark.slow)], indirect=True
)
def test_no_refusal_reaches_a_caller_while_versions_are_swapped(swapping, protocol):
    double, addresses, models = swapping
    ask = clients.make_client(protocol, addresses[protocol], deadline=20.0)
    asked = [dataclasses.replace(REQUEST, target_history=(f"t{i % 9}",)) for i in range(16)]
    cached = ask.encode_user(asked)
    over = threading.Event()
    answers = []

    def work(seed):
        rng = np.random.default_rng(seed)
        while not over.is_set():
            some = [cached[i] for i in rng.integers(len(cached), size=3)]
            answers.append(ask.score_encoded(some, [REQUEST.candidates] * 3))
            ask.score([REQUEST])

    with futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work, seed) for seed in range(4)]
        try:
            for number in range(2, 6):
                double.load(models[number % 2], number=number)
                served = len(answers)
                while len(answers) < served + 20 and not any(r.done() for r in running):
                    over.wait(0.01)
        finally:
            over.set()
        for one in running:
            one.result()  # raises what reached the caller
    # Scores by the versions that encoded them, whatever was swapped under them.
    for user in cached:
        ask.score_encoded([user], [REQUEST.candidates])
        assert user.encoding.version in (4, 5)
        with double._lock:
            inputs = requests.score_inputs([user.request])
            expected = double.versions[user.encoding.version].run("score", inputs)["ctr"][0]
        (scores,) = ask.score_encoded([user], [REQUEST.candidates])
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    ask.close()


# ---- what is said ----


def test_a_refusal_says_what_the_model_wants(served, protocol, capsys):
    served[0].failures, served[0].delay = 0, 0.0
    here = [f"--address={served[1][protocol]}", "--deadline=9"]
    many = ",".join(["t2"] * 2001)
    with pytest.raises(
        InputError,
        match=r"refused the request \((INVALID_ARGUMENT|HTTP 400): .*more than 2000 candidates.*"
        r"\): score takes candidates, candidates_length, source_history, .*target_history_length$",
    ):
        run_main(clients, f"--protocol={protocol}", *here, f"--candidates={many}")
    with pytest.raises(InputError, match=r"serves no model 'sitn', version 7 \((NOT_F|HTTP 404)"):
        run_main(clients, f"--protocol={protocol}", *here, "--candidates=t2", "--version=7")
    given = ["--candidates=t2", "--user_id=u1"]
    if protocol == "grpc":
        with pytest.raises(InputError, match=r"target_history_length: give no user_id$"):
            run_main(clients, "--protocol=grpc", *here, *given)


@pytest.fixture(scope="module")
def of_context(tmp_path_factory):
    """Addresses of a server whose model reads more of a request than its items."""
    folder = tmp_path_factory.mktemp("of_context")
    features = ("model.request_features=hour,user", "model.user_buckets=50")
    run_dir = write_small_run(folder / "run", *features, measured=False)
    made, _ = export(run_dir, folder / "servable", ExportOptions(goldens=8))
    with serve(made) as (_, addresses):
        yield addresses


def test_a_refusal_names_the_context_that_the_model_wants(of_context, protocol):
    flags = [f"--protocol={protocol}", f"--address={of_context[protocol]}", "--candidates=t2"]
    wanted = r"score takes .*request_time.*: give --request_time=VALUE and --user_id=VALUE$"
    with pytest.raises(InputError, match=wanted):
        run_main(clients, *flags, "--deadline=5")
    with pytest.raises(InputError, match=r"user_id.*: give --request_time=VALUE$"):
        run_main(clients, *flags, "--deadline=5", "--user_id=u1")


def test_output_filter_asks_for_less(ask):
    answer = ask.predict("score", requests.score_inputs([REQUEST]), outputs=["ctr"])
    assert list(answer) == ["ctr"]


class _Silent:
    """A client whose first so many calls are not answered."""

    def __init__(self, silent):
        self.silent = silent

    def score(self, asked):
        self.silent -= 1
        if self.silent >= 0:
            raise serving_client.ServerError("UNAVAILABLE", "nobody", retryable=True)


@pytest.mark.parametrize(("silent", "status"), [(5, 1), (4, 0), (0, 0)])
def test_a_load_without_an_answer_is_a_failure(monkeypatch, capsys, silent, status):
    monkeypatch.setattr(golden, "read", lambda _: [golden.Golden(REQUEST, (0.0,), (0.0,))])
    assert clients._golden(_Silent(silent), pathlib.Path("1"), load=5, threads=1) == status
    assert (f"{silent} x UNAVAILABLE" in capsys.readouterr().out) == bool(silent)
