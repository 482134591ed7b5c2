"""Writes seeded click logs of two domains whose users' interests are known.

    python -m pipelines.synthetic --output=/tmp/logs --users=3000

    <output>/
      source.jsonl.gz  target.jsonl.gz    the logs, one event a line
      source_items.jsonl.gz  target_items.jsonl.gz
      synthetic.json                      written last: knobs, counts, best possible AUC

The model. There are G interests, the same in both domains. An item i belongs to
one interest g(i) and has popularity w_i ∝ rank_i^(-popularity) within it.
A user u has M slots per domain, each an interest and a weight,

    target slot j:   (g_uj, e_uj),     g uniform on 1..G,  e ~ Gamma(2)
    source slot j:   the target's slot j with probability `shared`, else its own draw
    theta_u^d(g) = Σ_j e_uj [g_uj = g] / Σ_j e_uj

so `shared` moves the agreement of theta^s and theta^t from none (0) to identity (1)
while each alone keeps its distribution. The target log is the same, byte for byte,
for every `shared`: only the source log changes.

    source click:      interest ~ theta_u^s, or uniform with probability `source_noise`;
                       item ~ w within the interest
    target candidate:  interest ~ theta_u^t with probability `relevant`, else uniform;
                       item ~ w within the interest; C distinct ones to a request
    click ~ Bernoulli(p),   p = sigmoid(bias + strength · theta_u^t(g(i)) + b_i),
                            b_i ~ Normal(0, quality²)

Numbers of source clicks and of target requests are Poisson with a Gamma(3) activity
per user; a `cold` user makes a single target request. Times are uniform over `days`
and interests do not move, so what came earlier predicts what comes later. The log's
`score` is p, and no scorer ranks better than p but by luck: its AUC is the best possible.

Title words, brand and second category each come from the item's own interest with
probability `side_signal`, else from anywhere. The field `interest` of an item line is
the planted g(i); the pipeline does not read it.

Users are made in chunks of fixed size, each with generators seeded by (seed, stream,
chunk): memory does not grow with `users`, and a user's lines do not depend on it.
"""

import contextlib
import dataclasses
import functools
import gzip
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from absl import flags

from sitn_tf import cli, schema
from sitn_tf.errors import InputError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

SUMMARY_FILE = "synthetic.json"
START_TIME = 1_700_000_000
SECONDS_PER_DAY = 86_400

CHUNK_USERS = 1024  # part of what a seed means: another size makes other logs
CHUNK_ITEMS = 65_536  # the same
WEIGHT_SHAPE = 2.0  # Gamma: few users with one all but empty slot
ACTIVITY_SHAPE = 3.0  # Gamma: activity spreads by 1/sqrt(3) about its mean

WORDS_PER_INTEREST = 30
NOISE_WORDS = 300
WORDS_PER_TITLE = 6
BRANDS_PER_INTEREST = 4
SECONDS_PER_INTEREST = 2  # second categories
INTERESTS_PER_MAIN = 4

SCORE_UNITS = 1_000_000
"""p is rounded to a millionth before the click is drawn: the log then holds it
exactly, and the AUC of any number of lines is one count per value."""

COMPRESSION_LEVEL = 1  # the next levels take twice the time for a tenth of the size
PROGRESS_SECONDS = 2.0

# The streams of random numbers; each has one purpose, so that a knob of one
# part leaves the others as they are.
_USERS, _ITEMS, _ITEM_LINES, _CLICKS, _UNCLICKED, _REQUESTS = range(6)

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_DISTINCT_ROUNDS = 20


def _knob(default: Any, meaning: str, low: float = -math.inf, high: float = math.inf) -> Any:
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "low": low, "high": high}
    )


@dataclasses.dataclass(frozen=True)
class Knobs:
    """Everything that decides what the logs say (see the module docstring)."""

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
            _check(field.name, getattr(self, field.name), **field.metadata)
        for name in ("source_items", "target_items"):
            count = getattr(self, name)
            if count < self.interests:
                raise InputError(
                    f"--{name}={count} is less than --interests={self.interests}: "
                    "every interest needs an item"
                )
            # Past one half, drawing distinct candidates by rejection gets slow.
            shown = name == "target_items" or self.source_impressions
            if shown and 2 * self.candidates > count and self.candidates > 1:
                raise InputError(
                    f"--candidates={self.candidates} is more than half of --{name}={count}"
                )

    def items(self, domain: str) -> int:
        return self.source_items if domain == schema.SOURCE else self.target_items

    @property
    def chunks(self) -> int:
        return -(-self.users // CHUNK_USERS)


def _check(name: str, value: Any, low: float, high: float, meaning: str) -> None:
    del meaning
    if not math.isfinite(value):
        raise InputError(f"--{name}={value} is not a finite number")
    if not low <= value <= high:
        accepted = f"between {low:.10g} and {high:.10g}" if high < math.inf else f"at least {low:g}"
        raise InputError(f"--{name}={value} is not {accepted}")


@dataclasses.dataclass(frozen=True)
class Items:
    """One domain's items; N of them, in order of their number.

    Attributes:
      interest: int64 [N], g(i).
      quality: float64 [N], b_i.
      by_interest: int64 [N], item numbers, grouped by interest, most popular first.
      cumulative: float64 [N], of the items in that order: g + the share of interest g's
        popularity up to and with the item, so that one search draws for all interests.
      last: int64 [G], the place of each interest's last item in that order.
    """

    interest: Ints
    quality: Floats
    by_interest: Ints
    cumulative: Floats
    last: Ints

    def draw(self, interest: Ints, rng: np.random.Generator) -> Ints:
        """An item of each interest in `interest` (any shape), by popularity."""
        place = np.searchsorted(self.cumulative, interest + rng.random(interest.shape), "right")
        # g + a number just below 1 may round to g + 1.
        return self.by_interest[np.minimum(place, self.last[interest])]


@dataclasses.dataclass(frozen=True)
class Slots:
    """The interests of n users in one domain: int64 [n, M] and float64 [n, M], rows sum to 1."""

    interest: Ints
    weight: Floats

    def theta(self, user: Ints, interest: Ints) -> Floats:
        """theta_u(g) for users [N, 1] or [N] and interests of a shape that broadcasts with it."""
        total: Floats = np.zeros(np.broadcast_shapes(user.shape, interest.shape))
        for slot in range(self.interest.shape[1]):
            of_slot = self.interest[user, slot] == interest
            total += np.where(of_slot, self.weight[user, slot], 0.0)
        return total

    def draw(self, user: Ints, rng: np.random.Generator) -> Ints:
        """An interest ~ theta_u for each user in `user` [N]."""
        cumulative = np.cumsum(self.weight, axis=1)[:, :-1]
        slot = np.sum(rng.random(len(user))[:, None] >= cumulative[user], axis=1)
        return self.interest[user, slot]


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


def _rng(knobs: Knobs, stream: int, part: int = 0) -> np.random.Generator:
    return np.random.default_rng([knobs.seed, stream, part])


def make_items(knobs: Knobs, domain: str) -> Items:
    """The items of a domain."""
    rng = _rng(knobs, _ITEMS, schema.DOMAINS.index(domain))
    count, interests = knobs.items(domain), knobs.interests
    # The numbers 0..N-1 shuffled: the remainder by G says the interest, the
    # quotient the rank in it, and an item's number says nothing of either.
    shuffled = rng.permutation(count)
    interest, rank = shuffled % interests, shuffled // interests
    by_interest = np.lexsort((rank, interest))
    weight = (rank[by_interest] + 1.0) ** -knobs.popularity
    sizes = np.bincount(interest, minlength=interests)
    last = np.cumsum(sizes) - 1
    total = np.add.reduceat(weight, last - sizes + 1)
    running = np.cumsum(weight)
    before = np.concatenate([[0.0], running[last[:-1]]])
    grouped = interest[by_interest]
    cumulative = grouped + (running - before[grouped]) / total[grouped]
    cumulative[last] = np.arange(1, interests + 1)
    return Items(
        interest=interest,
        quality=knobs.quality * rng.standard_normal(count),
        by_interest=by_interest,
        cumulative=cumulative,
        last=last,
    )


def make_users(knobs: Knobs, chunk: int) -> dict[str, Slots]:
    """The slots of a chunk's users, by domain."""
    rng = _rng(knobs, _USERS, chunk)
    shape = (CHUNK_USERS, knobs.active)
    target_interest, own_interest = rng.integers(knobs.interests, size=(2, *shape))
    target_weight, own_weight = rng.gamma(WEIGHT_SHAPE, size=(2, *shape))
    is_shared = rng.random(shape) < knobs.shared
    source_interest = np.where(is_shared, target_interest, own_interest)
    source_weight = np.where(is_shared, target_weight, own_weight)
    return {
        schema.SOURCE: Slots(source_interest, _normalise(source_weight)),
        schema.TARGET: Slots(target_interest, _normalise(target_weight)),
    }


def _normalise(weight: Floats) -> Floats:
    return np.asarray(weight / np.sum(weight, axis=1, keepdims=True))


def make_source(knobs: Knobs, items: Items, slots: Slots, chunk: int) -> Events:
    """The source log of a chunk's users: clicks, or clicks among unclicked candidates."""
    rng = _rng(knobs, _CLICKS, chunk)
    user, moment = _occasions(knobs, _activity(knobs.source_clicks, rng), rng)
    at_random = rng.random(len(user)) < knobs.source_noise
    anything = rng.integers(knobs.interests, size=len(user))
    item = items.draw(np.where(at_random, anything, slots.draw(user, rng)), rng)
    order = _in_time(knobs, user, moment, chunk)
    number = chunk * CHUNK_USERS + user[order]
    if not knobs.source_impressions:
        click = np.ones(len(order), np.int64)
        return Events(number, item[order], moment[order], None, click, None)

    rng = _rng(knobs, _UNCLICKED, chunk)
    shape = (len(user), knobs.candidates)
    shown = items.draw(rng.integers(knobs.interests, size=shape), rng)
    shown[:, 0] = item
    _make_distinct(shown, lambda rows: items.draw(_anything(knobs, rows, rng), rng), items, rng)
    place = rng.permuted(np.tile(np.arange(knobs.candidates), (len(user), 1)), axis=1)
    return Events(
        user=np.repeat(number, knobs.candidates),
        item=np.take_along_axis(shown, place, axis=1)[order].ravel(),
        time=np.repeat(moment[order], knobs.candidates),
        request=np.repeat(_number_within(user)[order], knobs.candidates),
        click=(place == 0)[order].ravel().astype(np.int64),
        score=None,
    )


def make_target(knobs: Knobs, items: Items, slots: Slots, chunk: int) -> Events:
    """The target log of a chunk's users: requests of C distinct candidates."""
    rng = _rng(knobs, _REQUESTS, chunk)
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
    return Events(
        user=np.repeat(chunk * CHUNK_USERS + user[order], knobs.candidates),
        item=shown[order].ravel(),
        time=np.repeat(moment[order], knobs.candidates),
        request=np.repeat(_number_within(user)[order], knobs.candidates),
        click=click[order].ravel().astype(np.int64),
        score=score[order].ravel(),
    )


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
    rng = _rng(knobs, _ITEM_LINES, 2 * part + schema.DOMAINS.index(domain))
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


def auc_of_counts(clicked: Ints, unclicked: Ints) -> float | None:
    """AUC from the numbers of clicked and unclicked lines at each score, lowest first.

    Args:
      clicked, unclicked: int64 [S].

    Returns:
      The share of (clicked, unclicked) pairs in the right order, ties half; None
      where there is no pair.
    """
    pairs = int(clicked.sum()) * int(unclicked.sum())
    if not pairs:
        return None
    below = np.cumsum(unclicked) - 0.5 * unclicked
    return float(np.dot(clicked, below)) / pairs


class Tally:
    """Counts of what was written, in memory that does not grow with it."""

    def __init__(self, interests: int) -> None:
        self.lines = dict.fromkeys(schema.DOMAINS, 0)
        self.clicks = dict.fromkeys(schema.DOMAINS, 0)
        self.clicks_of_interest = {d: np.zeros(interests, np.int64) for d in schema.DOMAINS}
        self.requests = 0
        self.shown_at = np.zeros(SCORE_UNITS + 1, np.int64)
        self.clicked_at = np.zeros(SCORE_UNITS + 1, np.int64)

    def add(self, domain: str, events: Events, items: Items) -> None:
        clicked = events.click == 1
        self.lines[domain] += len(events)
        self.clicks[domain] += int(clicked.sum())
        counts = self.clicks_of_interest[domain]
        counts += np.bincount(items.interest[events.item[clicked]], minlength=len(counts))
        if events.score is not None:
            np.add.at(self.shown_at, events.score, 1)
            np.add.at(self.clicked_at, events.score[clicked], 1)

    def best_auc(self) -> float | None:
        """AUC of p over all target lines."""
        return auc_of_counts(self.clicked_at, self.shown_at - self.clicked_at)

    def expected_clicks(self) -> float:
        """Σ p over all target lines."""
        return float(np.dot(self.shown_at, np.arange(SCORE_UNITS + 1)) / SCORE_UNITS)


@contextlib.contextmanager
def _replacing(path: pathlib.Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes its own when all was written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as raw:
            if compressed:
                # No name and no time in the header: equal logs are equal bytes.
                with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, raw, mtime=0) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield raw
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_names(compressed: bool) -> dict[str, str]:
    """Names of the logs and item files, by the flag of build_dataset that takes them."""
    ending = ".jsonl.gz" if compressed else ".jsonl"
    logs = {f"{domain}_log": domain + ending for domain in schema.DOMAINS}
    return logs | {f"{domain}_items": f"{domain}_items{ending}" for domain in schema.DOMAINS}


def write(
    knobs: Knobs, output: str | pathlib.Path, *, compressed: bool = True, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the logs, the items and `synthetic.json` into `output`.

    Returns:
      What `synthetic.json` holds: knobs, files, numbers of lines, clicks and items,
      `ctr` (clicks by target line), `mean_score` (what it is expected to be) and
      `best_auc` (of p, over all target lines; None without a click or without a miss).

    Raises:
      InputError: `output` cannot be written to, or holds files that are not of synthetic
        logs and are not to be overwritten.
    """
    output = pathlib.Path(output)
    names = file_names(compressed)
    try:
        if not overwrite and _is_of_others(output):
            raise InputError(
                f"--output={output} holds files that are no synthetic logs (no {SUMMARY_FILE} "
                "beside them): give an empty directory, or --overwrite"
            )
        output.mkdir(parents=True, exist_ok=True)
        # Present means whole, also while old logs are being replaced.
        (output / SUMMARY_FILE).unlink(missing_ok=True)
        items = {domain: make_items(knobs, domain) for domain in schema.DOMAINS}
        for domain in schema.DOMAINS:
            path = output / names[f"{domain}_items"]
            with _replacing(path, compressed=compressed) as stream:
                for part in range(-(-knobs.items(domain) // CHUNK_ITEMS)):
                    stream.write(format_items(knobs, domain, items[domain], part))
        tally = _write_logs(knobs, items, output, names, compressed)
        summary = _summary(knobs, items, tally, names)
        with _replacing(output / SUMMARY_FILE, compressed=False) as stream:
            stream.write((json.dumps(summary, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"--output={output} cannot be written: {error.strerror}") from error
    return summary


def _is_of_others(output: pathlib.Path) -> bool:
    """Whether a directory holds anything that no whole synthetic logs are beside."""
    return output.is_dir() and not (output / SUMMARY_FILE).is_file() and any(output.iterdir())


def _write_logs(
    knobs: Knobs,
    items: dict[str, Items],
    output: pathlib.Path,
    names: dict[str, str],
    compressed: bool,
) -> Tally:
    tally = Tally(knobs.interests)
    make = {schema.SOURCE: make_source, schema.TARGET: make_target}
    shown = time.monotonic()
    with contextlib.ExitStack() as stack:
        streams = {
            domain: stack.enter_context(
                _replacing(output / names[f"{domain}_log"], compressed=compressed)
            )
            for domain in schema.DOMAINS
        }
        for chunk in range(knobs.chunks):
            users = make_users(knobs, chunk)
            for domain, stream in streams.items():
                events = make[domain](knobs, items[domain], users[domain], chunk)
                stream.write(format_events(events, domain))
                tally.add(domain, events, items[domain])
            if time.monotonic() - shown > PROGRESS_SECONDS or chunk == knobs.chunks - 1:
                shown = time.monotonic()
                done = min(knobs.users, (chunk + 1) * CHUNK_USERS)
                lines = sum(tally.lines.values())
                print(f"{done:,} of {knobs.users:,} users, {lines:,} lines", file=sys.stderr)
    return tally


def _summary(
    knobs: Knobs, items: dict[str, Items], tally: Tally, names: dict[str, str]
) -> dict[str, Any]:
    target_lines = tally.lines[schema.TARGET]
    best = tally.best_auc()
    return {
        "knobs": dataclasses.asdict(knobs),
        "files": names,
        "lines": tally.lines,
        "clicks": tally.clicks,
        "requests": target_lines // knobs.candidates,
        "ctr": round(tally.clicks[schema.TARGET] / target_lines, 6) if target_lines else None,
        "mean_score": round(tally.expected_clicks() / target_lines, 6) if target_lines else None,
        "best_auc": None if best is None else round(best, 6),
        "planted": {
            domain: {
                "items_of_interest": np.bincount(items[domain].interest).tolist(),
                "clicks_of_interest": tally.clicks_of_interest[domain].tolist(),
            }
            for domain in schema.DOMAINS
        },
    }


def next_command(output: str | pathlib.Path, names: dict[str, str]) -> str:
    """The command that makes a data set of the logs."""
    output = pathlib.Path(output)
    options = [f"--{flag}={output / name}" for flag, name in names.items()]
    options += ["--label_field=click", "--request_field=request_id", "--score_field=score"]
    options += [f"--output={output / 'data'}"]
    return " \\\n    ".join(["python -m pipelines.build_dataset", *options])


FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "directory to write to; made if missing", flag_values=FLAGS)
flags.DEFINE_bool(
    "overwrite", False, "write into a directory that holds other files", flag_values=FLAGS
)
flags.DEFINE_bool("gzip", True, "whether to compress the logs and items", flag_values=FLAGS)


def _define_knobs() -> None:
    define: dict[type, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for field in dataclasses.fields(Knobs):
        meaning = field.metadata["meaning"]
        define[type(field.default)](field.name, field.default, meaning, flag_values=FLAGS)


_define_knobs()


def main(unknown: list[str]) -> None:
    del unknown
    given: dict[str, Any] = {f.name: FLAGS[f.name].value for f in dataclasses.fields(Knobs)}
    knobs = Knobs(**given)
    if not FLAGS.output:
        raise InputError("--output is missing: name the directory to write the logs to")
    summary = write(knobs, FLAGS.output, compressed=FLAGS.gzip, overwrite=FLAGS.overwrite)
    lines, clicks = summary["lines"], summary["clicks"]
    best = "undefined" if summary["best_auc"] is None else f"{summary['best_auc']:.4f}"
    print(
        f"{FLAGS.output}: {lines['source']:,} source lines ({clicks['source']:,} clicks) and "
        f"{lines['target']:,} target lines ({clicks['target']:,} clicks) of "
        f"{knobs.users:,} users\n"
        f"best possible AUC over all target lines: {best}\n"
        f"next:\n  {next_command(FLAGS.output, summary['files'])}"
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
