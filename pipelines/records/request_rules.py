"""Events of a domain to requests, their splits, and the rules by which some are left out."""

import dataclasses

import numpy as np

from pipelines.options import Job
from pipelines.records import column_hashes, histories, shards
from sitn_tf import schema

SPLIT_CODES = {name: code for code, name in enumerate(schema.STAGE2_SPLITS)}
NO_SPLIT = -1
TIME_LIMIT = (1 << histories.TIME_BITS) - 1
CROSSES = "crosses_a_cutoff"
"""The rule of requests that begin before a cutoff and have lines, so labels, from after it."""
TOO_MANY_CANDIDATES = "too_many_candidates"
NO_NEGATIVES = "no_negatives_left"
"""The rule of requests whose users have clicked all that could be drawn."""


def too_short(domain: str) -> str:
    """The rule of requests with fewer clicks of a domain before them than asked for."""
    return f"{domain}_history_too_short"


@dataclasses.dataclass(frozen=True)
class Cutoffs:
    """Unix seconds: train is before the first, validation before the second.

    Both None where the split is by each user's last requests.
    """

    train_until: int | None
    validation_until: int | None


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests of a shard, sorted by (user, time, ...).

    Attributes:
      user: int64 [r].
      time, last: int64 [r], of the first and of the last line.
      rows: int64 [candidates], events of their domain in order of their requests; of a candidate
        with several lines the first.
      clicked: bool [candidates], whether any of a candidate's lines was.
      score: float32 [candidates], the highest of its lines, or None where the log has no scores.
      start, stop: int64 [r], the request's candidates are rows[start:stop].
      seed: uint64 [r], hash of user and request, which all sampling starts from.
      merged: lines beside the first of a candidate.
    """

    user: np.ndarray
    time: np.ndarray
    last: np.ndarray
    rows: np.ndarray
    clicked: np.ndarray
    score: np.ndarray | None
    start: np.ndarray
    stop: np.ndarray
    seed: np.ndarray
    merged: int


@dataclasses.dataclass(frozen=True)
class Clicks:
    """The clicks among a domain's events, sorted by (user, time): int64 [n] each."""

    user: np.ndarray
    time: np.ndarray
    item: np.ndarray

    @classmethod
    def of(cls, events: shards.Events) -> "Clicks":
        order = np.flatnonzero(events.clicked)
        return cls(events.user[order], events.time[order], events.item[order])


@dataclasses.dataclass(frozen=True)
class Asked:
    """A domain's requests, and where each goes.

    Attributes:
      requests: all of them.
      history: by domain, (start, stop) into `Plan.clicks`, truncated: int64 [r] each.
      split: int64 [r], index into schema.STAGE2_SPLITS or NO_SPLIT where filtered.
      filtered: number of requests left out, by rule.
    """

    requests: Requests
    history: dict[str, tuple[np.ndarray, np.ndarray]]
    split: np.ndarray
    filtered: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a shard's records are made of.

    Attributes:
      clicks: by domain.
      asked: requests by domain: the target's, and the source's once they are planned.
      user_cutoff: int64 [users]; training knows only what is before it.
      user_end: int64 [users]; validation knows only what is before it.
    """

    clicks: dict[str, Clicks]
    asked: dict[str, Asked]
    user_cutoff: np.ndarray
    user_end: np.ndarray


def find(events: shards.Events, user_hash: np.ndarray, job: Job, domain: str) -> Requests:
    """Impressions grouped to requests, or each click a request of its own.

    Impressions belong together if user and request id agree and none is more than
    `job.request_seconds` after the first, whose time counts; or, where the log names no requests,
    if user and time agree. Lines of one request and item are one candidate.
    """
    if not job.impressions(domain):
        rows = np.flatnonzero(events.clicked)
        start = np.arange(len(rows))
        stop = start + 1
        detail = column_hashes.hash_strings(events.items)[events.item[rows]]
    else:
        named = job.formats[domain].request is not None
        rows, start, stop = _grouped(events, job.request_seconds if named else None)
        named_hash = column_hashes.hash_strings(events.requests)
        first = events.request[rows[start]]
        detail = named_hash[first] if len(named_hash) else np.zeros(len(start), np.uint64)
    user = events.user[rows[start]]
    time, last = events.time[rows[start]], events.time[rows[stop - 1]]
    seed = column_hashes.combine(user_hash[user], time, detail)
    lines = len(rows)
    rows, start, stop, clicked, score = _candidates(events, rows, start, stop)
    order = shards.sort_order(user, time)
    columns = (user, time, last, start, stop, seed)
    user, time, last, start, stop, seed = (column[order] for column in columns)
    merged = lines - len(rows)
    return Requests(user, time, last, rows, clicked, score, start, stop, seed, merged)


def _candidates(
    events: shards.Events, rows: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Lines by request, in order of time, to candidates: rows, start, stop, clicked, score.

    A log may tell the click of an impression by a line of its own.
    """
    owner = np.repeat(np.arange(len(start)), stop - start)
    order = shards.sort_order(owner, events.item[rows])
    owner, lines = owner[order], rows[order]
    new = np.ones(len(lines), bool)
    new[1:] = (np.diff(owner) != 0) | (np.diff(events.item[lines]) != 0)
    first = np.flatnonzero(new)
    score = None if events.score is None else events.score[lines]
    if len(first) == len(lines):
        return lines, start, stop, events.clicked[lines], score
    clicked = np.logical_or.reduceat(events.clicked[lines], first)
    score = None if score is None else np.fmax.reduceat(score, first)
    edges = np.searchsorted(owner[first], np.arange(len(start) + 1))
    return lines[first], edges[:-1], edges[1:], clicked, score


def _grouped(
    events: shards.Events, longest: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event rows by request, in order of time, and where each request's begin and end.

    Args:
      longest: seconds that a request of an id lasts; None where the log names no requests.
    """
    key = events.time if longest is None else events.request
    rows = shards.sort_order(events.user, key)
    user, key = events.user[rows], key[rows]
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(user) != 0) | (np.diff(key) != 0)
    if longest is not None:
        new[_later_requests(events.time[rows], np.flatnonzero(new), longest)] = True
    start = np.flatnonzero(new)
    return rows, start, np.append(start[1:], len(rows)) if len(start) else start


def _later_requests(time: np.ndarray, start: np.ndarray, longest: int) -> np.ndarray:
    """Rows at which an id that was given before begins another request: int64 [any].

    Args:
      time: int64 [n], ascending within the lines of a user's request id.
      start: int64 [ids], where the lines of each begin.
      longest: seconds after a request's first line until which its lines may come.
    """
    owner = np.repeat(np.arange(len(start)), np.diff(np.append(start, len(time))))
    keys = histories.user_time_key(owner, time)
    found = [start[:0]]
    while len(start):
        ends = np.minimum(time[start] + longest, TIME_LIMIT)
        after = np.searchsorted(keys, histories.user_time_key(owner[start], ends), side="right")
        same = after < len(keys)
        same[same] = owner[after[same]] == owner[start[same]]
        start = after[same]
        found.append(start)
    return np.concatenate(found)


def plan(
    events: dict[str, shards.Events], user_hash: np.ndarray, job: Job, cutoffs: Cutoffs
) -> Plan:
    """Everything about a shard's target requests (events by domain) that needs no vocabulary."""
    requests = find(events[schema.TARGET], user_hash, job, schema.TARGET)
    clicks = {domain: Clicks.of(of_domain) for domain, of_domain in events.items()}
    before = _clicks_before(clicks, requests)
    rules = _Rules(len(requests.user))
    for domain, (start, stop) in before.items():
        rules.leave_out(stop - start < job.min_history(domain), too_short(domain))
    rules.leave_out(requests.stop - requests.start > job.max_candidates, TOO_MANY_CANDIDATES)
    if job.split == "time":
        assert cutoffs.train_until is not None
        assert cutoffs.validation_until is not None
        bounds = np.array([cutoffs.train_until, cutoffs.validation_until])
        split = np.searchsorted(bounds, requests.time, side="right")
        rules.leave_out(split != np.searchsorted(bounds, requests.last, side="right"), CROSSES)
        user_cutoff, user_end = (np.full(len(user_hash), bound) for bound in bounds)
    else:
        split, user_cutoff = last_requests(requests.user, requests.time, rules.left, len(user_hash))
        user_end = np.full(len(user_hash), TIME_LIMIT)
        tests = split == SPLIT_CODES[schema.TEST]
        user_end[requests.user[tests]] = requests.time[tests]
        late = (split == SPLIT_CODES[schema.TRAIN]) & (requests.last >= user_cutoff[requests.user])
        rules.leave_out(late, "at_the_users_cutoff")
        last_event = np.maximum(*(_last_time(e, len(user_hash)) for e in events.values()))
        user_cutoff = np.minimum(user_cutoff, last_event + 1)
    asked = {schema.TARGET: rules.asked(requests, before, split, job)}
    return Plan(clicks, asked, user_cutoff, user_end)


def with_source(plan: Plan, events: shards.Events, user_hash: np.ndarray, job: Job) -> Plan:
    """The plan with the source's requests: training before each user's cutoff, then validation.

    Users without the other domain are welcome, so no history is too short.

    Args:
      events: of the source.
    """
    requests = find(events, user_hash, job, schema.SOURCE)
    rules = _Rules(len(requests.user))
    rules.leave_out(requests.stop - requests.start > job.max_candidates, TOO_MANY_CANDIDATES)
    rules.leave_out(requests.last >= plan.user_end[requests.user], "in_the_test_period")
    cutoff = plan.user_cutoff[requests.user]
    rules.leave_out((requests.time < cutoff) & (requests.last >= cutoff), CROSSES)
    split = np.where(
        requests.time < cutoff, SPLIT_CODES[schema.TRAIN], SPLIT_CODES[schema.VALIDATION]
    )
    asked = rules.asked(requests, _clicks_before(plan.clicks, requests), split, job)
    return dataclasses.replace(plan, asked=plan.asked | {schema.SOURCE: asked})


def _clicks_before(
    clicks: dict[str, Clicks], requests: Requests
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By domain, (start, stop) of all the user's clicks before each request."""
    return {
        domain: histories.strictly_before(c.user, c.time, requests.user, requests.time)
        for domain, c in clicks.items()
    }


class _Rules:
    """Requests [r] that are left, and how many each rule left out."""

    def __init__(self, requests: int) -> None:
        self.left = np.ones(requests, bool)
        self.filtered: dict[str, int] = {}

    def leave_out(self, where: np.ndarray, rule: str) -> None:
        count = int((self.left & where).sum())
        if count:
            self.filtered[rule] = count
        self.left[where] = False

    def asked(
        self,
        requests: Requests,
        before: dict[str, tuple[np.ndarray, np.ndarray]],
        split: np.ndarray,
        job: Job,
    ) -> Asked:
        """The requests with their latest history, split where they are left."""
        history = {d: histories.latest(*slices, job.max_history) for d, slices in before.items()}
        return Asked(requests, history, np.where(self.left, split, NO_SPLIT), self.filtered)


def _last_time(events: shards.Events, users: int) -> np.ndarray:
    """Time of each user's last event, -1 for none: int64 [users]."""
    last = np.full(users, -1)
    last[events.user] = events.time  # sorted by time: the last one stays
    return last


def last_requests(
    user: np.ndarray, time: np.ndarray, eligible: np.ndarray, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's last eligible request is test, the one before validation, the rest train.

    A user with fewer than three goes wholly to train.

    Args:
      user, time: int64 [r], sorted by (user, time).
      eligible: bool [r].
      users: how many users there are.

    Returns:
      split int64 [r], and the time of each user's validation request int64 [users],
      TIME_LIMIT for a user without one.
    """
    split = np.zeros(len(user), np.int64)
    cutoff = np.full(users, TIME_LIMIT)
    rows = np.flatnonzero(eligible)
    owner = user[rows]
    enough = np.bincount(owner, minlength=users)[owner] >= 3
    from_end = shards.from_the_end(owner)
    validation = rows[enough & (from_end == 1)]
    split[rows[enough & (from_end == 0)]] = SPLIT_CODES[schema.TEST]
    split[validation] = SPLIT_CODES[schema.VALIDATION]
    cutoff[user[validation]] = time[validation]
    return split, cutoff
