"""Requests as people think of them → the inputs of signatures."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf import schema

SOURCE_HISTORY = schema.SOURCE_HISTORY.name
TARGET_HISTORY = schema.TARGET_HISTORY.name
CANDIDATES = schema.CANDIDATES.name

Inputs = dict[str, np.ndarray]
Vocabulary = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Request:
    """Raw ids of what a user clicked, oldest first, and of the items to score."""

    source_history: tuple[str, ...]
    target_history: tuple[str, ...]
    candidates: tuple[str, ...]


def read_vocabulary(path: pathlib.Path) -> Vocabulary:
    """Ids by token of a vocabulary file: line i has id i + 2."""
    # Not splitlines(): a raw id may hold a character that only Python takes for a line end.
    tokens = path.read_bytes().decode(errors="surrogateescape").removesuffix("\n").split("\n")
    return {token: i + schema.FIRST_ID for i, token in enumerate(tokens)}


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


def user_inputs(requests: Sequence[Request]) -> Inputs:
    """Inputs of `encode_user`."""
    return id_inputs(SOURCE_HISTORY, [r.source_history for r in requests]) | id_inputs(
        TARGET_HISTORY, [r.target_history for r in requests]
    )


def candidate_inputs(rows: Sequence[Sequence[str]]) -> Inputs:
    """What `score_encoded` takes beside an encoded user; column j of scores is candidate j."""
    return id_inputs(CANDIDATES, rows)


def score_inputs(requests: Sequence[Request]) -> Inputs:
    """Inputs of `score`; column j of its outputs is candidate j."""
    return user_inputs(requests) | candidate_inputs([r.candidates for r in requests])


def ids(tokens: Sequence[str], vocabulary: Mapping[str, int]) -> list[int]:
    return [vocabulary.get(token, schema.OOV_ID) if token else schema.PAD_ID for token in tokens]


def example(request: Request, vocabularies: Mapping[str, Vocabulary]) -> bytes:
    """A serialized stage-2 Example, as far as serving reads it."""
    from tensorflow.core.example import example_pb2

    made = example_pb2.Example()
    for name, tokens, domain in (
        (SOURCE_HISTORY, request.source_history, schema.SOURCE),
        (TARGET_HISTORY, request.target_history, schema.TARGET),
        (CANDIDATES, request.candidates, schema.TARGET),
    ):
        values = ids(tokens, vocabularies[domain])
        made.features.feature[name].int64_list.value.extend(values)
    return made.SerializeToString()


def example_inputs(requests: Sequence[Request], vocabularies: Mapping[str, Vocabulary]) -> Inputs:
    """Inputs of `serving_default`."""
    return {"examples": np.array([example(r, vocabularies) for r in requests], dtype=object)}


def own_scores(outputs: np.ndarray, requests: Sequence[Request]) -> list[np.ndarray]:
    """Each request's scores out of `[R, C]`: a batch may be wider than a request."""
    return [row[: len(r.candidates)] for row, r in zip(outputs, requests, strict=True)]


def from_dict(row: Mapping[str, Any]) -> Request:
    return Request(*(tuple(row[name]) for name in (SOURCE_HISTORY, TARGET_HISTORY, CANDIDATES)))
