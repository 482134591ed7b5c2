"""Facts come back from JSON as they were."""

import collections
import dataclasses
import json

import numpy as np

from pipelines import facts
from pipelines.logs.line_counts import Account, TimeHistogram


@dataclasses.dataclass
class Nested:
    days: collections.Counter[int]
    accounts: dict[str, Account]
    ranks: tuple[int, ...]
    name: str | None = None
    low: float = float("inf")


def test_back_from_json_as_they_were():
    ended = Account(total=3, used=2, filtered={"a": 1}, rejected={})
    nested = Nested(collections.Counter({-2: 1, 7: 3}), {"source": ended}, (1, 2))
    assert facts.from_json(Nested, json.loads(json.dumps(facts.to_json(nested)))) == nested


def test_arrays_come_back():
    times = TimeHistogram.of(np.array([5, 5, 9]))
    back = facts.from_json(TimeHistogram, json.loads(json.dumps(facts.to_json(times))))
    assert (back.level, back.buckets.tolist(), back.counts.tolist()) == (0, [5, 9], [2, 1])


def test_entries_of_the_manifest_leave_out_what_is_none():
    ended = Account(total=3, used=3, filtered={}, rejected={})
    assert facts.without_none(ended) == {"total": 3, "used": 3, "filtered": {}, "rejected": {}}
    assert facts.without_none(dataclasses.replace(ended, carried=2))["carried"] == 2
