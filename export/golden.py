"""Golden requests: made at export, scored by the trained model, travelling with the servable.

They are raw ids, so that they can be put to a later version with another vocabulary too.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from export import calibration as calibrations
from export import requests as reqs
from export import version_files
from export.requests import Request
from sitn_tf import schema
from sitn_tf.errors import InputError
from sitn_tf.item_tables import ItemTable

if TYPE_CHECKING:
    from sitn_tf.trained_models import Run

FILE = "assets.extra/golden.jsonl"
MAX_CANDIDATES = 20
BATCH = 64

CTR_TOLERANCE = 1e-6
LOGIT_TOLERANCE = 1e-4
"""float32 log-odds of some ten, through a calibration curve that may be steep."""

EMPTY_SHARE = 0.05
OVER_LONG_SHARE = 0.05
UNKNOWN_SHARE = 0.03

TIMES = (1_262_304_000, 1_893_456_000)
"""Unix seconds of 2010-01-01 and 2030-01-01, between which golden requests are made."""
USERS = 1000
IDLE_BITS = 28
"""Golden requests come up to 2^28 seconds, eight years, after the last click."""

Scores = list[np.ndarray]
Answer = Callable[[Sequence[Request]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Golden:
    """A request and the log-odds that its candidates got, calibrated.

    Log-odds, because probabilities lie near 0 where many negatives were left out: an
    absolute difference of them would show nothing there.

    Attributes:
      trained: from the trained model in Python, float32 tables.
      exported: from the serving graph at export; differs where tables are quantised.
    """

    request: Request
    trained: tuple[float, ...]
    exported: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Largest absolute differences over all candidates; NaN if there is one.

    Attributes:
      logit: None where the signature gives none (an export with outputs=ctr).
    """

    ctr: float
    logit: float | None

    @property
    def passes(self) -> bool:
        return self.ctr <= CTR_TOLERANCE and (self.logit is None or self.logit <= LOGIT_TOLERANCE)

    def __str__(self) -> str:
        logit = "" if self.logit is None else f", {self.logit:.2e} of log-odds"
        verdict = "ok" if self.passes else "FAILED"
        return f"max abs difference {self.ctr:.2e} of ctr{logit}  {verdict}"


def make_requests(
    tables: Mapping[str, ItemTable],
    max_history: int,
    count: int,
    seed: int = 0,
    context: Collection[str] = (),
) -> list[Request]:
    """Requests that cover what serving meets: empty, short, over-long, unknown ids.

    Items are drawn by their clicks in training, plus one.

    Args:
      context: which of requests.CONTEXT and requests.HISTORY_OF_TIMES they have; some of each are
        missing.
    """
    rng = np.random.default_rng(seed)
    draw = {domain: _sampler(table, rng) for domain, table in tables.items()}

    def make() -> Request:
        asked = Request(
            draw[schema.SOURCE](_history_length(rng, max_history)),
            draw[schema.TARGET](_history_length(rng, max_history)),
            tuple(dict.fromkeys(draw[schema.TARGET](int(rng.integers(1, MAX_CANDIDATES + 1))))),
            _time(rng) if reqs.REQUEST_TIME in context else None,
            _user(rng) if reqs.USER_ID in context else None,
        )
        told: dict[str, Any] = {}
        if reqs.HISTORY_TIME in context:
            told[reqs.HISTORY_TIME] = _earlier(rng, asked.request_time or 0)
        for name, history in reqs.HISTORY_OF_TIMES.items():
            if name in context:
                clicks = len(getattr(asked, history))
                told[name] = tuple(_earlier(rng, asked.request_time or 0) for _ in range(clicks))
        return dataclasses.replace(asked, **told)

    return [make() for _ in range(count)]


def _time(rng: np.random.Generator) -> int:
    return int(rng.integers(-1, 1) if rng.random() < UNKNOWN_SHARE else rng.integers(*TIMES))


def _earlier(rng: np.random.Generator, time: int) -> int:
    idle = int(2 ** rng.uniform(0.0, IDLE_BITS))
    return schema.NO_HISTORY_TIME if rng.random() < UNKNOWN_SHARE else time - idle


def _user(rng: np.random.Generator) -> str:
    return "" if rng.random() < UNKNOWN_SHARE else f"user {rng.integers(USERS)}"


def _sampler(table: ItemTable, rng: np.random.Generator) -> Callable[[int], tuple[str, ...]]:
    cumulative = np.cumsum(table.count[schema.FIRST_ID :] + 1.0)

    def draw(size: int) -> tuple[str, ...]:
        rows = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
        unknown = rng.random(size) < UNKNOWN_SHARE
        return tuple(
            f"unknown item {row}" if new else table.ids[row + schema.FIRST_ID]
            for row, new in zip(rows, unknown, strict=True)
        )

    return draw


def _history_length(rng: np.random.Generator, max_history: int) -> int:
    kind = rng.random()
    if kind < EMPTY_SHARE:
        return 0
    if kind < EMPTY_SHARE + OVER_LONG_SHARE:
        return int(rng.integers(max_history + 1, 2 * max_history + 1))
    return int(np.exp(rng.uniform(0.0, np.log(max_history + 1.0))))


def trained_logits(
    run: "Run",
    requests: Sequence[Request],
    vocabularies: Mapping[str, reqs.Vocabulary],
    calibration: calibrations.Calibration,
) -> list[np.ndarray]:
    """Log-odds from the trained model: ids looked up and histories cut here, in Python."""
    import tensorflow as tf

    from sitn_tf.evaluation.predictions import scoring_graph

    score = scoring_graph(run.scorer)
    longest = run.manifest.max_history
    times = [feature.name for feature in run.scorer.click_inputs]
    context = [feature.name for feature in run.scorer.request_inputs]

    def logits(batch: Sequence[Request]) -> list[np.ndarray]:
        cut = [_cut(request, longest) for request in batch]
        rows = [reqs.ids_by_name(request, vocabularies) for request in cut]
        inputs = {name: _pad_ids([row[name] for row in rows]) for name in rows[0]}
        inputs |= reqs.times_inputs(cut, times) | reqs.context_inputs(batch, context)
        answer = score({name: tf.constant(value) for name, value in inputs.items()})
        return reqs.own_scores(calibrations.apply(calibration, answer.numpy()), batch)

    return [scores for batch in batches(requests) for scores in logits(batch)]


def served(answer: Answer, requests: Sequence[Request]) -> tuple[Scores, Scores]:
    """`ctr` and `logit` (none if not given) from a signature that scores, wherever it runs."""
    ctr, logit = [], []
    for batch in batches(requests):
        outputs = answer(batch)
        ctr += reqs.own_scores(outputs[reqs.CTR], batch)
        if reqs.LOGIT in outputs:
            logit += reqs.own_scores(outputs[reqs.LOGIT], batch)
    return ctr, logit


def compare(scores: tuple[Scores, Scores], expected: Sequence[Any]) -> Difference:
    """Served `ctr` and `logit` against expected log-odds."""
    ctr, logit = (np.concatenate([np.zeros(0), *rows]) for rows in scores)
    wanted = np.concatenate([np.zeros(0), *map(np.asarray, expected)])
    return Difference(
        ctr=float(np.max(np.abs(ctr - calibrations.sigmoid(wanted)), initial=0.0)),
        logit=float(np.max(np.abs(logit - wanted), initial=0.0)) if scores[1] else None,
    )


def mean_shift(logits: Scores, expected: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference of log-odds over all candidates."""
    return float(np.mean(np.abs(np.concatenate(logits) - np.concatenate(list(expected)))))


def batches(requests: Sequence[Request], size: int = BATCH) -> list[Sequence[Request]]:
    return [requests[i : i + size] for i in range(0, len(requests), size)]


def _cut(request: Request, longest: int) -> Request:
    """The most recent of its histories, and of their times."""
    rows = {name: getattr(request, name) for pair in reqs.HISTORY_OF_TIMES.items() for name in pair}
    kept = {name: row and row[-longest:] for name, row in rows.items()}
    return dataclasses.replace(request, **kept)


def _pad_ids(rows: Sequence[Sequence[int]]) -> np.ndarray:
    padded = np.zeros((len(rows), max(1, *map(len, rows)) if rows else 1), np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def write(directory: pathlib.Path, goldens: Sequence[Golden]) -> None:
    path = directory / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({**reqs.to_dict(g.request), "trained": g.trained, "exported": g.exported}
            for g in goldens)  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(directory: pathlib.Path) -> list[Golden]:
    """Raises InputError where it is no version, or the file is missing or not whole."""
    version_files.read_metadata(directory)
    try:
        rows = [json.loads(line) for line in (directory / FILE).read_text().splitlines()]
        return [Golden(reqs.from_dict(r), tuple(r["trained"]), tuple(r["exported"])) for r in rows]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{directory} is damaged, {FILE} cannot be read",
            "export it again with python -m export.export_model --force",
        ) from error
