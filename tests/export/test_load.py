"""The drill of load: what it would notice, and some seconds of it."""

import numpy as np
import pytest

from export import golden, requests
from tests.drills import load


def samples(rise, seconds=600.0, noise=3.0):
    times = np.linspace(0.0, seconds, 200)
    swings = noise * np.sin(times)
    warming = 100.0 * np.minimum(times / 100.0, 1.0)
    return list(zip(times, 500 + warming + swings + rise * times / seconds, strict=True))


def test_growth_is_the_rise_after_the_warm_up():
    assert load.growth(samples(rise=0.0)) == pytest.approx(0.0, abs=1.0)
    assert load.growth(samples(rise=90.0)) == pytest.approx(60.0, abs=1.0)  # two thirds of it


def test_a_leak_of_one_small_object_a_request_is_lost_and_noise_is_not():
    assert load.allowed(1000) == load.NOISE_MB
    assert load.allowed(2**20) == load.LEAK_BYTES

    def lost(rise, answered):
        done = load.Load(memory=[(t, {"client": mb}) for t, mb in samples(rise)])
        done.answered["score"] = answered
        return [outcome.lost for outcome in load.told(done)][1]

    assert lost(10.0, 1000) == ()
    (told,) = lost(30.0, 1000)
    assert told.startswith("grew by 19.8 MB, more than 16.0")  # 20, and what is left of swings
    # 200 bytes each of 300,000 requests.
    assert lost(57.0, 300_000)
    assert lost(15.0, 300_000) == ()


class Answers:
    """A client whose version 3 always says this."""

    answering = 3

    def __init__(self, ctr):
        self.ctr = ctr

    def score(self, asked):
        return [np.array([self.ctr])] * len(asked)


def test_an_answer_of_the_other_model_is_noticed():
    asked = requests.Request((), (), ("t2",))
    even, odd = ([golden.Golden(asked, (log_odds,), (log_odds,))] for log_odds in (1.0, 0.0))
    # Version 3 holds the odd model, whose log-odds of 0 are a probability of 1/2.
    assert load.Caller(Answers(0.5), [even, odd], seed=0).score() == 3
    with pytest.raises(AssertionError, match=r"request 0, version 3: off by 0\.231"):
        load.Caller(Answers(0.7310586), [even, odd], seed=0).score()  # 1 / (1 + exp(-1))


@pytest.mark.slow
def test_seconds_of_mixed_requests_over_swapped_versions(servable, other_servable, tmp_path):
    models = [servable / "1", other_servable / "1"]
    done = load.load(tmp_path / "servable", models, seconds=3.0, swaps=2)
    assert done.wrong == []
    assert sum(done.answered.values()) > 20
    assert done.swaps == 2
    assert len(done.answering) >= 2
