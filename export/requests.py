"""Requests as people think of them → the inputs of signatures, by the names of both."""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf import schema
from sitn_tf.errors import InputError

SERVING_DEFAULT = "serving_default"
SCORE = "score"
ENCODE_USER = "encode_user"
SCORE_ENCODED = "score_encoded"

SOURCE_HISTORY = schema.SOURCE_HISTORY.name
TARGET_HISTORY = schema.TARGET_HISTORY.name
CANDIDATES = schema.CANDIDATES.name
REQUEST_TIME = schema.REQUEST_TIME.name
HISTORY_TIME = schema.HISTORY_TIME.name
SOURCE_TIMES = schema.SOURCE_TIMES.name
TARGET_TIMES = schema.TARGET_TIMES.name
USER_ID = schema.USER_ID.name
EXAMPLES = "examples"
ENCODER = "encoder"
CTR = "ctr"
LOGIT = "logit"

Inputs = dict[str, np.ndarray]

CONTEXT: Mapping[str, tuple[int | str, type]] = {
    REQUEST_TIME: (0, np.int64),
    USER_ID: ("", object),
    HISTORY_TIME: (0, np.int64),
}
"""What a model may read of a request beside ids: what stands for unknown, and its dtype."""

HISTORY_OF_TIMES = {SOURCE_TIMES: SOURCE_HISTORY, TARGET_TIMES: TARGET_HISTORY}
"""The histories whose clicks a model may read the times of; 0 is not known."""

Vocabulary = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Request:
    """Raw ids of what a user clicked, oldest first, and of the items to score.

    When (Unix seconds) and by whom it is made, the newest time in either history, and the time of
    each click are sent only if given: a model that reads none of them has no such inputs.

    Raises:
      InputError: times of a history's clicks, but not one for each.
    """

    source_history: tuple[str, ...]
    target_history: tuple[str, ...]
    candidates: tuple[str, ...]
    request_time: int | None = None
    user_id: str | None = None
    history_time: int | None = None
    source_times: tuple[int, ...] | None = None
    target_times: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, history in HISTORY_OF_TIMES.items():
            times, clicks = getattr(self, name), getattr(self, history)
            if times is not None and len(times) != len(clicks):
                raise InputError(
                    f"{name} has {len(times)} times, {history} has {len(clicks)} items",
                    "give a time for each, 0 where it is not known",
                )


def read_vocabulary(path: pathlib.Path) -> Vocabulary:
    """Ids by token of a vocabulary file: line i has id i + 2."""
    # Not splitlines(): a raw id may hold a character that only Python takes for a line end.
    tokens = path.read_bytes().decode(errors="surrogateescape").removesuffix("\n").split("\n")
    return {token: i + schema.FIRST_ID for i, token in enumerate(tokens)}


def read_vocabularies(folder: pathlib.Path) -> dict[str, Vocabulary]:
    """Item ids by domain, from a run's `vocabularies` or a version's `assets`.

    A model that sees no source history carries no source vocabulary: it is empty then.
    """
    files = {d: folder / f"{schema.vocabulary_name(d, schema.ITEM)}.txt" for d in schema.DOMAINS}
    return {d: read_vocabulary(path) if path.is_file() else {} for d, path in files.items()}


def length_of(name: str) -> str:
    """The input that says how many columns of each row of `name` are real."""
    return f"{name}_length"


def id_inputs(name: str, rows: Sequence[Sequence[str]]) -> Inputs:
    """Rows of raw ids as the signatures take them.

    Returns:
      `name`: `[R, longest]` object array of strings, at least one column wide, for
        TF Serving's batcher cannot pad a tensor without elements; and its length, `[R]`
        int64.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    padded = np.full((len(rows), max(1, lengths.max(initial=0))), "", dtype=object)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return {name: padded, length_of(name): lengths}


def context_inputs(requests: Sequence[Request], wanted: Collection[str] | None = None) -> Inputs:
    """When, by whom and after what requests are made, as models that read it take it.

    Args:
      wanted: names of the inputs; None for those that a request has a value of.

    Returns:
      `request_time` and `history_time` `[R]` int64 and `user_id` `[R]` object array of strings, as
      far as wanted; 0 and "", which mean unknown, for a request without.
    """
    made: Inputs = {}
    for name, (missing, dtype) in CONTEXT.items():
        values = [getattr(request, name) for request in requests]
        if any(value is not None for value in values) if wanted is None else name in wanted:
            made[name] = np.array([missing if v is None else v for v in values], dtype)
    return made


def times_inputs(requests: Sequence[Request], wanted: Collection[str] | None = None) -> Inputs:
    """When the clicks of histories were, as models that read it take it.

    Args:
      wanted: as in `context_inputs`.

    Returns:
      `source_times` and `target_times` int64, as wide as the ids that they stand beside, as far as
      wanted; 0, which means unknown, where a request has none.
    """
    made: Inputs = {}
    for name, history in HISTORY_OF_TIMES.items():
        rows = [getattr(request, name) for request in requests]
        if any(row is not None for row in rows) if wanted is None else name in wanted:
            width = max(1, *(len(getattr(request, history)) for request in requests))
            made[name] = np.zeros((len(rows), width), np.int64)
            for i, row in enumerate(rows):
                made[name][i, : len(row or ())] = row or ()
    return made


def user_inputs(requests: Sequence[Request], wanted: Collection[str] | None = None) -> Inputs:
    """Inputs of `encode_user`; `wanted` as in `context_inputs`."""
    return {
        **id_inputs(SOURCE_HISTORY, [r.source_history for r in requests]),
        **id_inputs(TARGET_HISTORY, [r.target_history for r in requests]),
        **times_inputs(requests, wanted),
        **context_inputs(requests, wanted),
    }


def candidate_inputs(rows: Sequence[Sequence[str]]) -> Inputs:
    """What `score_encoded` takes beside an encoded user; column j of scores is candidate j."""
    return id_inputs(CANDIDATES, rows)


def score_inputs(requests: Sequence[Request], wanted: Collection[str] | None = None) -> Inputs:
    """Inputs of `score`; column j of its outputs is candidate j. `wanted`: `context_inputs`."""
    return user_inputs(requests, wanted) | candidate_inputs([r.candidates for r in requests])


def ids(tokens: Sequence[str], vocabulary: Mapping[str, int]) -> list[int]:
    return [vocabulary.get(token, schema.OOV_ID) if token else schema.PAD_ID for token in tokens]


def ids_by_name(request: Request, vocabularies: Mapping[str, Vocabulary]) -> dict[str, list[int]]:
    """What a stage-2 record holds of a request: its ids by the names of records."""
    return {
        SOURCE_HISTORY: ids(request.source_history, vocabularies[schema.SOURCE]),
        TARGET_HISTORY: ids(request.target_history, vocabularies[schema.TARGET]),
        CANDIDATES: ids(request.candidates, vocabularies[schema.TARGET]),
    }


def example(request: Request, vocabularies: Mapping[str, Vocabulary]) -> bytes:
    """A serialized stage-2 Example, as far as serving reads it."""
    from tensorflow.core.example import example_pb2

    made = example_pb2.Example()
    for name, values in ids_by_name(request, vocabularies).items():
        made.features.feature[name].int64_list.value.extend(values)
    for name in HISTORY_OF_TIMES:
        if (times := getattr(request, name)) is not None:
            made.features.feature[name].int64_list.value.extend(times)
    for name in (REQUEST_TIME, HISTORY_TIME):
        if (time := getattr(request, name)) is not None:
            made.features.feature[name].int64_list.value.append(time)
    if request.user_id is not None:
        made.features.feature[USER_ID].bytes_list.value.append(request.user_id.encode())
    return made.SerializeToString()


def example_inputs(requests: Sequence[Request], vocabularies: Mapping[str, Vocabulary]) -> Inputs:
    """Inputs of `serving_default`."""
    return {EXAMPLES: np.array([example(r, vocabularies) for r in requests], dtype=object)}


def own_scores(outputs: np.ndarray, requests: Sequence[Request]) -> list[np.ndarray]:
    """Each request's scores out of `[R, C]`: a batch may be wider than a request."""
    return [row[: len(r.candidates)] for row, r in zip(outputs, requests, strict=True)]


def from_dict(row: Mapping[str, Any]) -> Request:
    """Raises KeyError where it lacks ids; what it lacks of the rest is not given."""
    fields: dict[str, Any] = {name: row.get(name) for name in CONTEXT}
    for name in (SOURCE_HISTORY, TARGET_HISTORY, CANDIDATES):
        fields[name] = tuple(row[name])
    for name in HISTORY_OF_TIMES:
        fields[name] = None if row.get(name) is None else tuple(row[name])
    return Request(**fields)


def to_dict(request: Request) -> dict[str, Any]:
    """What a request says, by field."""
    return {name: v for name, v in dataclasses.asdict(request).items() if v is not None}
