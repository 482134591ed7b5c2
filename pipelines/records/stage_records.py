"""A shard's events to the serialized records of both stages."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.options import Job
from pipelines.records import column_hashes, examples, histories, negatives, request_rules, shards
from pipelines.records.vocabulary import Vocabulary
from sitn_tf import schema

CHUNK = 8192
"""Records encoded at once: what a chunk needs stays small whatever a user has done."""

_SEED_OF_DOMAIN = {schema.TARGET: 2, schema.SOURCE: 3}
"""Beside the job's, so that stage 1 (1) and either domain's requests draw apart."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard's events with ids.

    Attributes:
      users: sorted strings [users]; user_hash: uint64 [users].
      plan: requests, histories and splits.
      click_ids: by domain, the item id of each click.
      encoded: the same as the column that histories are ranges of.
      encoded_times: by domain, the times of the clicks as such a column; of a job with click_times.
      events: by domain with requests; ids: int64 [n], their item ids.
    """

    users: pa.Array
    user_hash: np.ndarray
    plan: request_rules.Plan
    click_ids: dict[str, np.ndarray]
    encoded: dict[str, examples.Slices]
    encoded_times: dict[str, examples.Slices]
    events: dict[str, shards.Events]
    ids: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some records of one stage and split: columns by feature name, n rows."""

    stage: str
    split: str
    columns: dict[str, examples.Column]
    rows: int

    @property
    def features(self) -> tuple[schema.Feature, ...]:
        """Those that the columns are of."""
        return schema.features_of(self.stage, schema.SOURCE_TIMES.name in self.columns)


def prepare(
    tables: dict[str, pa.Table],
    job: Job,
    cutoffs: request_rules.Cutoffs,
    vocabularies: Mapping[str, Vocabulary],
) -> Shard:
    """Codes, plans and looks up the ids of a shard's sorted events."""
    users, events = shards.coded(tables)
    user_hash = column_hashes.hash_strings(users)
    plan = request_rules.plan(events, user_hash, job, cutoffs)
    if job.source_requests:
        plan = request_rules.with_source(plan, events[schema.SOURCE], user_hash, job)
    of_items = {domain: vocabularies[domain].ids(e.items) for domain, e in events.items()}
    click_ids = {domain: of_items[domain][plan.clicks[domain].item] for domain in schema.DOMAINS}
    asked = {domain: events[domain] for domain in plan.asked}
    ids = {domain: of_items[domain][e.item] for domain, e in asked.items()}
    encoded = {domain: examples.Slices.of(column) for domain, column in click_ids.items()}
    encoded_times = {
        domain: examples.Slices.of(plan.clicks[domain].time)
        for domain in (schema.DOMAINS if job.click_times else ())
    }
    return Shard(users, user_hash, plan, click_ids, encoded, encoded_times, asked, ids)


def stage1(shard: Shard, job: Job) -> Iterator[Chunk]:
    """One record a user whose histories before the training cutoff are long enough."""
    everyone = np.arange(len(shard.users))
    cutoff = shard.plan.user_cutoff
    history = {
        domain: histories.strictly_before(c.user, c.time, everyone, cutoff)
        for domain, c in shard.plan.clicks.items()
    }
    enough = np.ones(len(everyone), bool)
    for domain, (start, stop) in history.items():
        enough &= stop - start >= max(1, job.min_history(domain))
        history[domain] = histories.latest(start, stop, job.max_history)
    seed = column_hashes.combine(shard.user_hash, job.seed, 1)
    held_out = column_hashes.unit_interval(seed) < job.stage1_holdout
    for split, members in ((schema.TRAIN, ~held_out), (schema.VALIDATION, held_out)):
        chosen = np.flatnonzero(enough & members)
        for rows in _chunks(chosen, seed):
            columns: dict[str, examples.Column] = {
                schema.USER_ID.name: shard.users.take(pa.array(rows)),
                schema.CUTOFF_TIME.name: cutoff[rows],
                **_histories(shard, history, rows),
            }
            yield Chunk(schema.STAGE1, split, columns, len(rows))


def requests(
    shard: Shard,
    job: Job,
    domain: str,
    popularity: negatives.Popularity,
    filtered: dict[str, int],
) -> Iterator[Chunk]:
    """One record a request of a domain; counts into `filtered` those that sampling leaves out."""
    plan, stage = shard.plan.asked[domain], schema.STAGE_OF_REQUESTS[domain]
    asked = plan.requests
    seed = column_hashes.combine(asked.seed, job.seed, _SEED_OF_DOMAIN[domain])
    clicks = shard.plan.clicks[domain]
    clicked = negatives.Pairs(clicks.user, shard.click_ids[domain])
    for split in schema.SPLITS[stage]:
        of_split = np.flatnonzero(plan.split == request_rules.SPLIT_CODES[split])
        for rows in _chunks(of_split, seed):
            if job.impressions(domain):
                kept, candidates = rows, _shown(shard, domain, rows, seed[rows])
            else:
                rows = _of_known_items(shard, domain, rows, job, popularity, filtered)
                kept, candidates = _sampled(shard, domain, rows, seed, job, popularity, clicked)
                _count(filtered, request_rules.NO_NEGATIVES, len(rows) - len(kept))
            columns: dict[str, examples.Column] = {
                schema.USER_ID.name: shard.users.take(pa.array(asked.user[kept])),
                schema.REQUEST_TIME.name: asked.time[kept],
                **_histories(shard, plan.history, kept),
                **candidates,
            }
            if len(kept):
                yield Chunk(stage, split, columns, len(kept))


def _count(filtered: dict[str, int], rule: str, requests_left_out: int) -> None:
    if requests_left_out:
        filtered[rule] = filtered.get(rule, 0) + requests_left_out


def _of_known_items(
    shard: Shard,
    domain: str,
    rows: np.ndarray,
    job: Job,
    popularity: negatives.Popularity,
    filtered: dict[str, int],
) -> np.ndarray:
    """The requests `rows` whose clicked item could be a sampled negative too.

    Others (without an id, or without a training click) would be known to be the click:
    evaluation would reward a model for nothing but liking unknown items.
    """
    if job.keep_unknown_clicks:
        return rows
    asked = shard.plan.asked[domain].requests
    known = popularity.drawn[shard.ids[domain][asked.rows[asked.start[rows]]]]
    _count(filtered, "clicked_item_unknown", int((~known).sum()))
    return rows[known]


def _chunks(rows: np.ndarray, seed: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in an order that is seeded, so that neighbours in a shard are no one user's."""
    rows = rows[np.argsort(seed[rows], kind="stable")]
    for begin in range(0, len(rows), CHUNK):
        yield rows[begin : begin + CHUNK]


def _histories(
    shard: Shard, history: dict[str, tuple[np.ndarray, np.ndarray]], rows: np.ndarray
) -> dict[str, examples.Column]:
    columns: dict[str, examples.Column] = {}
    newest = np.full(len(rows), schema.NO_HISTORY_TIME)
    for domain, (start, stop) in history.items():
        start, stop = start[rows], stop[rows]
        columns[schema.HISTORY_OF_DOMAIN[domain].name] = shard.encoded[domain].rows(start, stop)
        if domain in shard.encoded_times:
            of_clicks = shard.encoded_times[domain].rows(start, stop)
            columns[schema.TIMES_OF_DOMAIN[domain].name] = of_clicks
        times = histories.newest_time(shard.plan.clicks[domain].time, start, stop)
        newest = np.maximum(newest, times)
    columns[schema.HISTORY_TIME.name] = newest
    return columns


def _shown(
    shard: Shard, domain: str, rows: np.ndarray, seed: np.ndarray
) -> dict[str, examples.Column]:
    """What was shown at the requests `rows`, in a seeded order."""
    asked, of_domain = shard.plan.asked[domain].requests, shard.events[domain]
    start, stop = asked.start[rows], asked.stop[rows]
    places = histories.ragged_index(start, stop)
    owner = np.repeat(np.arange(len(rows)), stop - start)
    item_hash = column_hashes.hash_strings(of_domain.items)[of_domain.item[asked.rows[places]]]
    places = places[negatives.shuffled(seed, owner, item_hash)]
    scores = np.empty(0, np.float32)
    known = np.zeros(len(rows), bool)
    if asked.score is not None and len(rows):
        scores = asked.score[places]
        known = np.logical_and.reduceat(~np.isnan(scores), np.cumsum(stop - start) - (stop - start))
        scores = scores[known[owner]]
    return _candidate_columns(
        domain,
        shard.ids[domain][asked.rows[places]],
        asked.clicked[places],
        stop - start,
        examples.Ragged.of_lengths(scores, np.where(known, stop - start, 0)),
    )


def _candidate_columns(
    domain: str,
    ids: np.ndarray,
    labels: np.ndarray,
    lengths: np.ndarray,
    scores: examples.Ragged,
) -> dict[str, examples.Column]:
    return {
        schema.CANDIDATES_OF_DOMAIN[domain].name: examples.Ragged.of_lengths(ids, lengths),
        schema.LABELS.name: examples.Ragged.of_lengths(labels.astype(np.int64), lengths),
        schema.LOGGED_SCORES.name: scores,
    }


def _sampled(
    shard: Shard,
    domain: str,
    rows: np.ndarray,
    seed: np.ndarray,
    job: Job,
    popularity: negatives.Popularity,
    clicked: negatives.Pairs,
) -> tuple[np.ndarray, dict[str, examples.Column]]:
    """Of the requests `rows` those with a negative, and their click among its negatives.

    Negatives come in no order, so a seeded place for the click hides it among them.
    """
    asked = shard.plan.asked[domain].requests
    drawn = negatives.sample(popularity, asked.user[rows], seed[rows], clicked, job.negatives)
    some = drawn[:, 0] > 0
    rows, drawn = rows[some], drawn[some]
    positive = shard.ids[domain][asked.rows[asked.start[rows]]][:, None]
    lengths = 1 + (drawn > 0).sum(axis=1)
    place = (column_hashes.combine(seed[rows], 0x5EED) % lengths.astype(np.uint64)).astype(np.int64)
    ids = negatives.with_click(positive, drawn, place)
    labels = np.arange(ids.shape[1]) == place[:, None]
    real = ids > 0
    none = examples.Ragged(np.empty(0, np.float32), np.zeros(len(rows) + 1, np.int64))
    return rows, _candidate_columns(domain, ids[real], labels[real], lengths, none)


def encode(chunk: Chunk) -> examples.Buffer:
    """The chunk's records in TFRecord framing."""
    return examples.tfrecords(examples.serialize(chunk.features, chunk.columns))
