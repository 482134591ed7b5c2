"""Requests that nobody should send: a score or INVALID_ARGUMENT, never a crash or a NaN."""

import pytest

from export import requests
from tests.fuzzing.serving_calls import check, fuzz


def test_fuzzed_requests(session):
    check(fuzz(session, seed=0, count=500), 500)


@pytest.mark.slow
def test_many_fuzzed_requests(session):
    check(fuzz(session, seed=1, count=12_000), 12_000)


def test_the_same_process_still_scores(session):
    asked = requests.Request(("s2",), ("t3",), ("t2", "t4"))
    assert session.run("score", requests.score_inputs([asked]))["ctr"].shape == (1, 2)
