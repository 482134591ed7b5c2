"""Planted interests to the events of a chunk's users."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipelines.synthetic_logs.interests import Items, Slots
from pipelines.synthetic_logs.knobs import (
    CHUNK_USERS,
    CLICKS,
    REQUESTS,
    SECONDS_PER_DAY,
    UNCLICKED,
    Ints,
    Knobs,
    generator,
)

START_TIME = 1_700_000_000
ACTIVITY_SHAPE = 3.0  # Gamma: activity spreads by 1/sqrt(3) about its mean

SCORE_UNITS = 1_000_000
"""p is rounded to a millionth before the click is drawn: the log then holds it
exactly, and the AUC of any number of lines is one count per value."""

_DISTINCT_ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class Events:
    """Log lines, each column [N], sorted by time.

    Attributes:
      user: int64, the user's number.
      item: int64, the item's number in its domain.
      time: int64, Unix seconds.
      request: int64, number of the request within its user; None where clicks alone are logged.
      click: int64, 0 or 1.
      score: int64, p in units of 1 / SCORE_UNITS; None where p is not defined.
    """

    user: Ints
    item: Ints
    time: Ints
    request: Ints | None
    click: Ints
    score: Ints | None

    def __len__(self) -> int:
        return len(self.user)


def make_source(knobs: Knobs, items: Items, slots: Slots, chunk: int) -> Events:
    """The source log of a chunk's users: clicks, or clicks among unclicked candidates."""
    rng = generator(knobs, CLICKS, chunk)
    user, moment = _occasions(knobs, _activity(knobs.source_clicks, rng), rng)
    at_random = rng.random(len(user)) < knobs.source_noise
    anything = rng.integers(knobs.interests, size=len(user))
    item = items.draw(np.where(at_random, anything, slots.draw(user, rng)), rng)
    order = _in_time(knobs, user, moment, chunk)
    number = chunk * CHUNK_USERS + user
    if not knobs.source_impressions:
        click = np.ones(len(order), np.int64)
        return Events(number[order], item[order], moment[order], None, click, None)

    rng = generator(knobs, UNCLICKED, chunk)
    shape = (len(user), knobs.candidates)
    shown = items.draw(rng.integers(knobs.interests, size=shape), rng)
    shown[:, 0] = item
    _make_distinct(shown, lambda rows: items.draw(_anything(knobs, rows, rng), rng), items, rng)
    place = rng.permuted(np.tile(np.arange(knobs.candidates), (len(user), 1)), axis=1)
    shown = np.take_along_axis(shown, place, axis=1)
    return _impressions(number, moment, _number_within(user), order, shown, place == 0)


def make_target(knobs: Knobs, items: Items, slots: Slots, chunk: int) -> Events:
    """The target log of a chunk's users: requests of C distinct candidates."""
    rng = generator(knobs, REQUESTS, chunk)
    requests = _activity(knobs.target_requests, rng)
    requests[rng.random(CHUNK_USERS) < knobs.cold] = 1
    user, moment = _occasions(knobs, requests, rng)

    def draw(rows: Ints) -> Ints:
        relevant = rng.random(len(rows)) < knobs.relevant
        interest = np.where(relevant, slots.draw(user[rows], rng), _anything(knobs, rows, rng))
        return items.draw(interest, rng)

    shape = (len(user), knobs.candidates)
    shown = draw(np.repeat(np.arange(len(user)), knobs.candidates)).reshape(shape)
    _make_distinct(shown, draw, items, rng)
    log_odds = knobs.bias + items.quality[shown]
    log_odds += knobs.strength * slots.theta(user[:, None], items.interest[shown])
    # The sigmoid by tanh: it does not overflow.
    exact = np.rint(SCORE_UNITS * (0.5 + 0.5 * np.tanh(0.5 * log_odds))).astype(np.int64)
    # Never 0 or 1: the log loss of p is finite and every p is written with its point.
    score = np.clip(exact, 1, SCORE_UNITS - 1)
    click = rng.random(shape) * SCORE_UNITS < score
    order = _in_time(knobs, user, moment, chunk)
    number = chunk * CHUNK_USERS + user
    return _impressions(number, moment, _number_within(user), order, shown, click, score)


def _impressions(
    user: Ints,
    moment: Ints,
    request: Ints,
    order: Ints,
    shown: Ints,
    click: npt.NDArray[np.bool_],
    score: Ints | None = None,
) -> Events:
    """The requests `order` of [N], a line for each candidate of `shown` [N, C]."""
    user, moment, request = (
        np.repeat(column[order], shown.shape[1]) for column in (user, moment, request)
    )
    clicked = click[order].ravel().astype(np.int64)
    scores = None if score is None else score[order].ravel()
    return Events(user, shown[order].ravel(), moment, request, clicked, scores)


def _activity(mean: float, rng: np.random.Generator) -> Ints:
    """How often each of a chunk's users does something: int64 [CHUNK_USERS]."""
    return rng.poisson(mean * rng.gamma(ACTIVITY_SHAPE, 1 / ACTIVITY_SHAPE, CHUNK_USERS))


def _occasions(knobs: Knobs, counts: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """User (within the chunk) and time of each of Σ counts occasions, grouped by user."""
    user = np.repeat(np.arange(len(counts)), counts)
    span = math.ceil(knobs.days * SECONDS_PER_DAY)
    return user, START_TIME + rng.integers(span, size=len(user))


def _in_time(knobs: Knobs, user: Ints, moment: Ints, chunk: int) -> Ints:
    """Places of the occasions of users that are wanted, in order of time.

    A chunk is always made whole, so that the users of the last one do not depend
    on how many of them are wanted.
    """
    order = np.argsort(moment, kind="stable")
    return order[chunk * CHUNK_USERS + user[order] < knobs.users]


def _number_within(user: Ints) -> Ints:
    """0, 1, … for the occasions of each user; `user` is grouped."""
    first = np.searchsorted(user, user)
    return np.arange(len(user)) - first


def _anything(knobs: Knobs, rows: Ints, rng: np.random.Generator) -> Ints:
    return rng.integers(knobs.interests, size=rows.shape)


def _make_distinct(
    shown: Ints, draw: Callable[[Ints], Ints], items: Items, rng: np.random.Generator
) -> None:
    """Draws again, in place, what repeats an earlier column of its row.

    Args:
      shown: int64 [N, C], item numbers.
      draw: rows [R] -> item numbers [R], a new candidate for each row.
      items: what is drawn uniformly from, should `draw` repeat itself for long.
      rng: of the uniform draws.
    """
    suspects = np.arange(len(shown))
    round_number = 0
    while len(suspects):
        # A stable sort leaves the first of equals in front.
        order = np.argsort(shown[suspects], axis=1, kind="stable")
        ordered = np.take_along_axis(shown[suspects], order, axis=1)
        at, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
        rows, columns = suspects[at], order[at, place + 1]
        if round_number < _DISTINCT_ROUNDS:
            shown[rows, columns] = draw(rows)
        else:
            shown[rows, columns] = rng.integers(len(items.interest), size=len(rows))
        suspects = np.unique(rows)
        round_number += 1
