"""The events of a user shard, as plain lists of one user at a time."""

import bisect
import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.logs import log_format
from pipelines.records import shards, vocabulary


@dataclasses.dataclass(frozen=True)
class User:
    """What the logs have of a user.

    Attributes:
      events: by domain, (time, item, clicked), sorted.
      clicks: by domain, (time, item) of the clicks, sorted, each once.
    """

    events: dict[str, list[tuple[int, str, bool]]]
    clicks: dict[str, list[tuple[int, str]]]

    def clicks_before(self, domain: str, moment: int) -> list[tuple[int, str]]:
        clicks = self.clicks[domain]
        return clicks[: bisect.bisect_left(clicks, (moment, ""))]

    def enough(self, moment: int, minimum: dict[str, int]) -> bool:
        """Whether the user has clicked often enough before a time."""
        return all(
            bisect.bisect_left(self.clicks[domain], (moment, "")) >= count
            for domain, count in minimum.items()
        )


@dataclasses.dataclass
class Request:
    """Lines that make a request.

    Attributes:
      key: what they have in common.
      first, last: times of the first line and the last.
      lines: how many they are.
      shown: by item, whether any line of it was clicked.
    """

    key: Any
    first: int
    last: int
    lines: int = 0
    shown: dict[str, bool] = dataclasses.field(default_factory=dict)


def requests(
    events: list[tuple[int, str, bool]], keys: Iterable[Any], longest: int
) -> list[Request]:
    """A user's requests in order of their time.

    Args:
      events: (time, item, clicked) of the user in a domain, sorted.
      keys: of each event what makes a request of it.
      longest: seconds after a request's first line until which lines with its key are its.
    """
    found: list[Request] = []
    current: dict[Any, Request] = {}
    for key, (at, item, clicked) in zip(keys, events, strict=True):
        if key not in current or at - current[key].first > longest:
            current[key] = Request(key, at, at)
            found.append(current[key])
        request = current[key]
        request.last = at
        request.lines += 1
        request.shown[item] = clicked or request.shown.get(item, False)
    return sorted(found, key=lambda request: (request.first, request.key))


class Events:
    """The events of a domain in a shard, sorted by user."""

    def __init__(self, table: pa.Table, tokens: pa.Array) -> None:
        table = table.combine_chunks()
        user, users = shards.ranked(table[log_format.USER])
        self.item, items = shards.ranked(table[log_format.ITEM])
        self.user = user
        self.time = table[log_format.TIME].to_numpy()
        self.clicked = np.asarray(table[log_format.CLICKED]).astype(bool)
        self.items = items.to_pylist()
        self.users = users.to_pylist()
        self.item_ids = vocabulary.ids_of(items, tokens)
        self.ids = dict(zip(self.items, self.item_ids.tolist(), strict=True))
        self._requests = (
            table[log_format.REQUEST] if log_format.REQUEST in table.column_names else None
        )
        edges = np.searchsorted(user, np.arange(len(users) + 1)).tolist()
        self._bounds = dict(zip(self.users, itertools.pairwise(edges), strict=True))

    def of(self, user: str) -> list[tuple[int, str, bool]]:
        begin, end = self._bounds.get(user, (0, 0))
        items = [self.items[code] for code in self.item[begin:end].tolist()]
        times, clicked = self.time[begin:end].tolist(), self.clicked[begin:end].tolist()
        return list(zip(times, items, clicked, strict=True))

    def requests_of(self, user: str) -> list[str]:
        begin, end = self._bounds.get(user, (0, 0))
        return [] if self._requests is None else self._requests[begin:end].to_pylist()


def user(events: dict[str, Events], name: str) -> User:
    """What the events of both domains in a shard have of a user."""
    of_user = {domain: of_domain.of(name) for domain, of_domain in events.items()}
    clicks = {
        domain: sorted({(moment, item) for moment, item, clicked in shown if clicked})
        for domain, shown in of_user.items()
    }
    return User(of_user, clicks)
