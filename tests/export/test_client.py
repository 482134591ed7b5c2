"""The clients against a stand-in that speaks TF Serving's protocols."""

import json
import pathlib
import re
import urllib.request

import numpy as np
import pytest

from export import client as clients
from export import golden, requests
from export.requests import Request
from sitn_tf.errors import InputError
from tests.commands import run_main
from tests.export.serving_double import serve

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
    with pytest.raises(clients.ServerError, match="more than 2000 candidates") as refused:
        ask.predict("score", bad)
    assert refused.value.status in ("INVALID_ARGUMENT", "HTTP 400")
    assert served[0].calls == 1


def test_the_deadline_holds_over_all_tries(ask, served):
    ask.deadline = 0.2
    served[0].failures = 1000
    with pytest.raises(clients.DeadlineExceededError, match=r"no answer in 0\.2 s"):
        ask.score([REQUEST])
    served[0].failures, served[0].delay = 0, 0.5
    with pytest.raises(clients.DeadlineExceededError):
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
        raise clients.ServerError("UNAVAILABLE", "away", retryable=True)

    with pytest.raises(clients.DeadlineExceededError, match="UNAVAILABLE: away"):
        clients.with_retries(attempt, 3.0, lambda: now[0], sleep)
    assert now[0] == pytest.approx(3.0)
    assert pauses[0] <= clients.FIRST_PAUSE
    assert clients.LONGEST_PAUSE / 2 <= max(pauses) <= clients.LONGEST_PAUSE
