"""Negatives: never a click of the user, distinct, seeded, and as popular as asked for."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records import negatives
from pipelines.records.negatives import Pairs, Popularity

SIX = Popularity(pa.array(list("fedcba")), np.array([8, 5, 3, 2, 1, 0]), 0.75)


def draw(users, clicked_users, clicked_items, count, popularity=SIX, seed=0):
    seeds = np.arange(len(users), dtype=np.uint64) + np.uint64(seed)
    clicked = Pairs(np.array(clicked_users, np.int64), np.array(clicked_items, np.int64))
    return negatives.sample(popularity, np.array(users), seeds, clicked, count)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 7)), max_size=20),
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(1, 6),
)
def test_distinct_unclicked_and_as_many_as_there_are(clicked, users, count):
    users = sorted(users)
    drawn = draw(users, [u for u, _ in clicked], [i for _, i in clicked], count)
    for user, row in zip(users, drawn.tolist(), strict=True):
        allowed = {2, 3, 4, 5, 6} - {i for u, i in clicked if u == user}  # 7 was never clicked
        chosen = [item for item in row if item]
        assert len(chosen) == len(set(chosen)) == min(count, len(allowed))
        assert set(chosen) <= allowed
        assert row[len(chosen) :] == [0] * (count - len(chosen))


def test_nothing_is_drawn_where_more_is_asked_for_than_there_is(monkeypatch):
    """Draws would double for nothing: of thousands of items to hundreds of thousands a request."""
    monkeypatch.setattr(Popularity, "draw", lambda *_: pytest.fail("drawn"))
    [row] = draw([0], [0], [3], 6).tolist()
    assert sorted(row) == [0, 0, 2, 4, 5, 6]


def test_frequency_follows_popularity():
    drawn = draw(np.zeros(40_000, np.int64), [], [], 1)
    share = np.bincount(drawn[:, 0], minlength=8)[2:7] / 40_000
    weights = np.array([8, 5, 3, 2, 1]) ** 0.75
    assert share == pytest.approx(weights / weights.sum(), abs=0.01)


def test_a_request_draws_the_same_whoever_is_beside_it():
    together = draw([0, 0, 1], [1], [2], 3)
    seeds = np.arange(3, dtype=np.uint64)
    alone = negatives.sample(SIX, np.array([1]), seeds[2:], Pairs(np.array([1]), np.array([2])), 3)
    assert together[2].tolist() == alone[0].tolist()


def test_the_same_items_are_drawn_whatever_ids_they_have():
    other = Popularity(pa.array(list("abcdef")), np.array([0, 1, 2, 3, 5, 8]), 0.75)
    first, second = draw([0] * 50, [], [], 3), draw([0] * 50, [], [], 3, other)
    assert [["??fedcba"[i] for i in row] for row in first.tolist()] == [
        ["??abcdef"[i] for i in row] for row in second.tolist()
    ]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200).filter(any), st.data())
def test_the_table_answers_as_the_search_does(counts, data):
    items = pa.array([f"{i:04d}" for i in range(len(counts))])
    popularity = Popularity(items, np.array(counts), 1.0)
    uniform = np.array(data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1)))
    place = np.searchsorted(np.cumsum(popularity.weights), uniform * sum(counts), side="right")
    assert popularity.draw(uniform).tolist() == popularity.ids[place].tolist()


@settings(max_examples=80)
@given(st.sets(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=80))
def test_pairs_hold_what_was_put_in(members):
    user, item = np.array(sorted(members), np.int64).reshape(-1, 2).T
    pairs = Pairs(user, item)
    asked_user, asked_item = np.divmod(np.arange(51 * 51), 51)
    found = pairs.has(asked_user, asked_item)
    assert set(zip(asked_user[found].tolist(), asked_item[found].tolist(), strict=True)) == members


def test_the_click_goes_to_its_place():
    click, others = np.array([[9], [8]]), np.array([[1, 2, 3], [4, 5, 0]])
    placed = negatives.with_click(click, others, np.array([1, 0]))
    assert placed.tolist() == [[1, 9, 2, 3], [8, 4, 5, 0]]


def test_shuffled_keeps_requests_apart():
    owner = np.repeat(np.arange(30), 5)
    order = negatives.shuffled(np.arange(30, dtype=np.uint64), owner, np.tile(np.arange(5), 30))
    assert owner[order].tolist() == owner.tolist()
    assert sorted(order.tolist()) == list(range(150))
    assert len({tuple(row % 5) for row in order.reshape(30, 5)}) > 15
