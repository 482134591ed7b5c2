"""Histories are strictly earlier, most recent kept: against a loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records import histories

events = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), max_size=40)


@settings(max_examples=300)
@given(events, events.filter(len), st.one_of(st.none(), st.integers(1, 5)))
def test_against_a_loop(clicks, asked, longest):
    clicks = sorted(clicks)
    user, time = np.array(clicks, np.int64).reshape(-1, 2).T
    request_user, request_time = np.array(asked, np.int64).T
    start, stop = histories.strictly_before(user, time, request_user, request_time)
    if longest:
        start, stop = histories.latest(start, stop, longest)
    newest = histories.newest_time(time, start, stop)
    flat = histories.ragged_index(start, stop).tolist()
    for row, (who, when) in enumerate(asked):
        expected = [i for i, (u, t) in enumerate(clicks) if u == who and t < when]
        expected = expected[-longest:] if longest else expected
        length = stop[row] - start[row]
        assert flat[:length] == expected
        flat = flat[length:]
        assert newest[row] == max((clicks[i][1] for i in expected), default=-1)
    assert not flat


def test_equal_times_are_left_out():
    one, day = np.array([0]), np.array([86_400])
    assert histories.strictly_before(one, day, one, day)[1].tolist() == [0]
    assert histories.strictly_before(one, day, one, day + 1)[1].tolist() == [1]


def test_the_largest_time_does_not_reach_into_the_next_user():
    last = (1 << histories.TIME_BITS) - 1
    user, time = np.array([0, 1]), np.array([5, 0])
    start, stop = histories.strictly_before(user, time, np.array([0, 1]), np.array([last, 0]))
    assert start.tolist() == [0, 1]
    assert stop.tolist() == [1, 1]
