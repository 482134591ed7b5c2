"""What decides what the logs say, and the random numbers that all of it is drawn with."""

import dataclasses
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipelines import option_fields
from pipelines.option_fields import option
from sitn_tf import schema
from sitn_tf.errors import InputError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

SECONDS_PER_DAY = 86_400

CHUNK_USERS = 1024  # part of what a seed means: another size makes other logs

# The streams of random numbers; each has one purpose, so that a knob of one
# part leaves the others as they are.
USERS, ITEMS, ITEM_LINES, CLICKS, UNCLICKED, REQUESTS = range(6)


def _knob(default: Any, meaning: str, low: float = -math.inf, high: float = math.inf) -> Any:
    words = f"between {low:.10g} and {high:.10g}" if high < math.inf else f"at least {low:g}"
    return option(default, meaning, (words, lambda value: low <= value <= high))


@dataclasses.dataclass(frozen=True)
class Knobs:
    """Everything that decides what the logs say (see pipelines/synthetic.py)."""

    seed: int = _knob(0, "seed of every random number", 0, 2**32 - 1)
    users: int = _knob(2000, "number of users", 1)
    source_items: int = _knob(2000, "number of source items", 1)
    target_items: int = _knob(1500, "number of target items", 1)
    interests: int = _knob(16, "number of planted interests, G", 1, 10_000)
    active: int = _knob(3, "slots of a user, the most interests that are active, M", 1, 100)
    shared: float = _knob(
        1.0, "probability that a source slot is the target's: 0 nothing shared, 1 all", 0, 1
    )
    source_clicks: float = _knob(30.0, "mean number of a user's source clicks", 0)
    source_noise: float = _knob(0.2, "share of source clicks that follow no interest", 0, 1)
    source_impressions: bool = _knob(
        False, "whether the source log shows each click among unclicked candidates"
    )
    target_requests: float = _knob(3.0, "mean number of target requests, users not cold", 0)
    cold: float = _knob(0.5, "share of users with a single target request", 0, 1)
    candidates: int = _knob(12, "candidates of a request, C", 1)
    relevant: float = _knob(0.15, "share of candidates drawn from the user's interests", 0, 1)
    popularity: float = _knob(0.8, "exponent of the power law of items, 0 for uniform", 0, 10)
    bias: float = _knob(-3.0, "log odds of a click where there is no interest")
    strength: float = _knob(5.5, "log odds that an interest of weight 1 adds")
    quality: float = _knob(0.3, "standard deviation of the items' own log odds", 0)
    side_signal: float = _knob(
        0.7, "probability that a title word, brand or category is of the item's interest", 0, 1
    )
    days: float = _knob(30.0, "days that the logs span", 1 / SECONDS_PER_DAY, 36_500)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not math.isfinite(value := getattr(self, field.name)):
                raise InputError(f"{field.name}={value} is not a finite number")
        option_fields.check(self)
        for name in ("source_items", "target_items"):
            count = getattr(self, name)
            if count < self.interests:
                raise InputError(
                    f"{name}={count} is less than interests={self.interests}: "
                    "every interest needs an item"
                )
            # Past one half, drawing distinct candidates by rejection gets slow.
            shown = name == "target_items" or self.source_impressions
            if shown and 2 * self.candidates > count and self.candidates > 1:
                raise InputError(
                    f"candidates={self.candidates} is more than half of {name}={count}"
                )

    def items(self, domain: str) -> int:
        return self.source_items if domain == schema.SOURCE else self.target_items

    @property
    def chunks(self) -> int:
        return -(-self.users // CHUNK_USERS)


def generator(knobs: Knobs, stream: int, part: int = 0) -> np.random.Generator:
    """The random numbers of a part (a chunk, a domain) of a stream."""
    return np.random.default_rng([knobs.seed, stream, part])
