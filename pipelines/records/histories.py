"""Clicks to point-in-time histories: what a user had clicked strictly before a time."""

import numpy as np

TIME_BITS = 32
"""Times are below 2**32 (the far future is rejected), so (user, time) fits in an int64."""


def user_time_key(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int64 [n] that sorts as (user, time)."""
    return user << TIME_BITS | time


def strictly_before(
    click_user: np.ndarray,
    click_time: np.ndarray,
    user: np.ndarray,
    time: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The slice of clicks that is each request's history.

    Clicks at the request's own time are left out: in a log that knows days only, they may
    have come after it.

    Args:
      click_user, click_time: int64 [n], sorted by (user, time).
      user, time: int64 [r] of the requests.

    Returns:
      start, stop: int64 [r]; clicks start..stop-1 are the history, oldest first.
    """
    keys = user_time_key(click_user, click_time)
    stop = np.searchsorted(keys, user_time_key(user, time), side="left")
    start = np.searchsorted(click_user, user, side="left")
    return start, stop


def latest(start: np.ndarray, stop: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The most recent clicks of each history, `longest` at the most: start, stop int64 [r]."""
    return np.maximum(start, stop - longest), stop


def newest_time(click_time: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Time of the last click of each slice, -1 for an empty one: int64 [r]."""
    if not len(click_time):
        return np.full(len(start), -1)
    return np.where(stop > start, click_time[np.maximum(stop - 1, 0)], -1)


def ragged_index(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """start..stop-1 of each slice, one after the other: int64 [sum of lengths]."""
    lengths = stop - start
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - lengths), lengths)
