"""Events and items to lines of JSON, column by column."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.synthetic_logs.events import SCORE_UNITS, Events
from pipelines.synthetic_logs.interests import Items
from pipelines.synthetic_logs.knobs import ITEM_LINES, Ints, Knobs, generator
from sitn_tf import schema

CHUNK_ITEMS = 65_536  # part of what a seed means

WORDS_PER_INTEREST = 30
NOISE_WORDS = 300
WORDS_PER_TITLE = 6
BRANDS_PER_INTEREST = 4
SECONDS_PER_INTEREST = 2  # second categories
INTERESTS_PER_MAIN = 4

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def _join(*parts: Any) -> pa.Buffer:
    """The strings of the parts (arrays, or one literal for all rows), row by row, as bytes."""
    texts = [
        part if isinstance(part, str | pa.Array) else pc.cast(pa.array(part), pa.string())
        for part in parts
    ]
    lines = pc.binary_join_element_wise(*texts, "")
    # An array's strings lie one after the other: its data is the text, uncopied.
    return lines.buffers()[2] or pa.py_buffer(b"")


def format_events(events: Events, domain: str) -> pa.Buffer:
    """The lines of a log, as bytes."""
    if not len(events):
        return pa.py_buffer(b"")
    user = pc.cast(pa.array(events.user), pa.string())
    parts: list[Any] = ['{"user_id": "u', user, f'", "item_id": "{domain[0]}', events.item]
    parts += ['", "timestamp": ', events.time]
    if events.request is not None:
        parts += [', "request_id": "u', user, "-", events.request, '"']
    parts += [', "click": ', events.click]
    if events.score is not None:
        parts += [', "score": ', events.score / SCORE_UNITS]
    return _join(*parts, "}\n")


def word(number: int) -> str:
    """A word of three syllables; distinct for distinct numbers below 343,000."""
    base = len(_SYLLABLES)
    mixed = number * 7919 % base**3  # a prime spreads neighbours
    return "".join(_SYLLABLES[mixed // base**place % base] for place in (2, 1, 0))


@functools.lru_cache(maxsize=2)
def _words(interests: int) -> pa.Array:
    return pa.array([word(k) for k in range(interests * WORDS_PER_INTEREST + NOISE_WORDS)])


def format_items(knobs: Knobs, domain: str, items: Items, part: int) -> pa.Buffer:
    """The lines of the `part`-th CHUNK_ITEMS items, as bytes."""
    rng = generator(knobs, ITEM_LINES, 2 * part + schema.DOMAINS.index(domain))
    first = part * CHUNK_ITEMS
    interest = items.interest[first : first + CHUNK_ITEMS]
    count = len(interest)

    def hint() -> Ints:
        own = rng.random(count) < knobs.side_signal
        return np.where(own, interest, rng.integers(knobs.interests, size=count))

    def title_word() -> pa.Array:
        own = rng.random(count) < knobs.side_signal
        telling = interest * WORDS_PER_INTEREST + rng.integers(WORDS_PER_INTEREST, size=count)
        noise = knobs.interests * WORDS_PER_INTEREST + rng.integers(NOISE_WORDS, size=count)
        return _words(knobs.interests).take(pa.array(np.where(own, telling, noise)))

    parts: list[Any] = [f'{{"item_id": "{domain[0]}', np.arange(first, first + count)]
    parts += ['", "title": "', title_word()]
    for _ in range(WORDS_PER_TITLE - 1):
        parts += [" ", title_word()]
    brand = hint() * BRANDS_PER_INTEREST + rng.integers(BRANDS_PER_INTEREST, size=count)
    category = hint()
    parts += ['", "brand": "Brand ', brand]
    parts += ['", "categories": [["Main ', category // INTERESTS_PER_MAIN]
    parts += ['", "Second ', category, "-", rng.integers(SECONDS_PER_INTEREST, size=count)]
    return _join(*parts, '"]], "interest": ', interest, "}\n")
