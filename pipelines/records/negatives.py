"""Items a user could have clicked and didn't: sampled by popularity, seeded by request."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.records import column_hashes
from sitn_tf import schema

_ROUNDS = 6
_SPARE = 4
_MOST_CELLS = 23


class Popularity:
    """Draws target items by clicks**power.

    Items are laid out by their text, not by id, so that the same item is drawn whether ids
    were given all at once or day by day.

    Attributes:
      ids: int64 [m], items with at least one click.
      weights: float64 [m].
      drawn: bool [V], by id, whether an item is one of them.

    A draw is a search in the cumulated weights; a table of where to look answers nearly all
    of them at once.
    """

    def __init__(self, items: pa.Array, clicks: np.ndarray, power: float) -> None:
        order = pc.array_sort_indices(items).to_numpy()
        order = order[clicks[order] > 0]
        self.ids = order.astype(np.int64) + schema.FIRST_ID
        self.weights = clicks[order].astype(np.float64) ** power
        self.drawn = np.zeros(len(items) + schema.FIRST_ID, bool)
        self.drawn[self.ids] = True
        self._edges = np.cumsum(self.weights)
        self._cells = 1 << min(_MOST_CELLS, max(8, (16 * len(self.ids)).bit_length()))
        self._place = np.empty(self._cells + 1, np.int32)
        if len(self.ids):
            for begin in range(0, self._cells + 1, 1 << 16):  # in pieces, to need little memory
                cells = np.arange(begin, min(begin + (1 << 16), self._cells + 1))
                self._place[cells] = self._search(cells / self._cells)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Uniform [0, 1) of shape [n] to item ids of that shape."""
        cell = (uniform * self._cells).astype(np.int64)
        place = self._place[cell].astype(np.int64)
        torn = np.flatnonzero(place != self._place[cell + 1])  # cells of more than one item
        place[torn] = self._search(uniform[torn])
        return self.ids[place]

    def _search(self, uniform: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self._edges, uniform * self._edges[-1], side="right")
        return np.minimum(place, len(self.ids) - 1)


class Pairs:
    """A set of (user, item id): int64 pairs, sorted, with a filter in front.

    Nearly all that is asked for is not in it; the filter says so with one look.
    """

    def __init__(self, user: np.ndarray, item: np.ndarray) -> None:
        self._sorted = np.unique(pairs(user, item))
        self._bits = max(10, (8 * len(self._sorted)).bit_length())
        self._maybe = np.zeros(1 << self._bits, bool)
        self._maybe[self._cell(self._sorted)] = True

    def _cell(self, keys: np.ndarray) -> np.ndarray:
        spread = keys.view(np.uint64) * column_hashes.GOLDEN
        return (spread >> np.uint64(64 - self._bits)).astype(np.int64)

    def has(self, user: np.ndarray | int, item: np.ndarray) -> np.ndarray:
        """Whether each (user, item) is in the set; shapes broadcast."""
        keys = pairs(user, item)
        there = self._maybe[self._cell(keys)]
        if len(self._sorted):
            asked = keys[there]
            place = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
            there[there] = self._sorted[place] == asked
        return there


def pairs(user: np.ndarray | int, item: np.ndarray) -> np.ndarray:
    """int64 [n] that tells (user, item id) apart."""
    return user << 32 | item


def sample(
    popularity: Popularity,
    user: np.ndarray,
    seed: np.ndarray,
    clicked: Pairs,
    per_request: int,
) -> np.ndarray:
    """Distinct item ids for each request that its user clicked at no time.

    Args:
      user: int64 [r]; seed: uint64 [r].
      clicked: all clicks of these users.
      per_request: how many.

    Returns:
      int64 [r, per_request], padded with 0 on the right where too few items are left.
    """
    chosen = np.zeros((len(user), per_request), np.int64)
    if not len(popularity.ids):
        return chosen
    todo = np.arange(len(user))
    drawn, width = 0, per_request + _SPARE
    previous = np.empty((len(user), 0), np.int64)
    # Where more are asked for than there are, no draws are enough.
    rounds = _ROUNDS if per_request <= len(popularity.ids) else 0
    for _ in range(rounds):
        steps = np.arange(drawn, drawn + width)
        hashes = column_hashes.combine(
            np.repeat(seed[todo], width), np.tile(steps, len(todo)), schema.SCHEMA_VERSION
        )
        new = popularity.draw(column_hashes.unit_interval(hashes)).reshape(len(todo), width)
        draws = np.concatenate([previous, new], axis=1)
        valid = ~clicked.has(user[todo][:, None], draws) & ~_repeated(draws)
        full = valid.sum(axis=1) >= per_request
        chosen[todo[full]] = _first(draws[full], valid[full], per_request)
        todo, previous = todo[~full], draws[~full]
        drawn, width = drawn + width, width * 2
        if not len(todo):
            return chosen
    for row in todo.tolist():  # users who clicked most of what there is
        chosen[row] = _exhaustive(popularity, user[row], seed[row], clicked, per_request)
    return chosen


def _repeated(rows: np.ndarray) -> np.ndarray:
    """Whether a value came before in its row: bool of the shape [r, w] of `rows`."""
    order = np.argsort(rows, axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, bool)
    again[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, axis=1)
    return result


def _first(rows: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """The first `count` valid values of each row, of which there are enough."""
    wanted = valid & (np.cumsum(valid, axis=1) <= count)
    return rows[wanted].reshape(len(rows), count)


def _exhaustive(
    popularity: Popularity, user: int, seed: int, clicked: Pairs, count: int
) -> np.ndarray:
    """Weighted sampling without replacement from all that is left (Efraimidis, Spirakis)."""
    left = ~clicked.has(int(user), popularity.ids)
    ids, weights = popularity.ids[left], popularity.weights[left]
    hashes = column_hashes.combine(np.full(len(ids), seed), np.flatnonzero(left), -1)
    keys = np.log(np.maximum(column_hashes.unit_interval(hashes), 1e-300)) / weights
    best = ids[np.argsort(-keys, kind="stable")[:count]]
    return np.pad(best, (0, count - len(best)))


def with_click(click: np.ndarray, negatives: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Puts the click [r, 1] at a place [r] among the negatives [r, n]: int64 [r, n + 1]."""
    before = np.concatenate([negatives, click], axis=1)
    after = np.concatenate([click, negatives], axis=1)
    column = np.arange(before.shape[1])
    at = place[:, None]
    return np.where(column < at, before, np.where(column == at, click, after))


def shuffled(seed: np.ndarray, owner: np.ndarray, values: np.ndarray) -> np.ndarray:
    """An order of candidates, seeded, within each request.

    Args:
      seed: uint64 [r]; owner: int64 [n], ascending index of each candidate's request.
      values: int64 [n], what tells candidates of a request apart (their item).

    Returns:
      int64 [n]: a permutation that keeps requests together and in order.
    """
    key = column_hashes.combine(seed[owner], values, 0x5EED)
    return np.lexsort((key, owner))
