"""Scorers' gains by slice of a split: by the histories of a request, and by what was clicked.

A slice takes whole requests, a clicked candidate with the others of its request, and its AUC is
pooled over their candidates: a slice of candidates by an item's popularity would have all its
clicks on one side. AUC of two slices are not to be compared, for their candidates differ; the gain
of one scorer over another on the same candidates is.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from sitn_tf.errors import InputError
from sitn_tf.evaluation.comparison import Comparison, compare
from sitn_tf.evaluation.kept_predictions import Predictions

LENGTH_STARTS = (0, 1, 5, 10, 20)
"""Where the slices of history lengths begin."""
POPULARITY_PARTS = 4
"""Slices of equal numbers of requests, beside that of items without a click in training."""


@dataclasses.dataclass(frozen=True)
class Slicing:
    """A way to cut R requests.

    Attributes:
      title: what they are cut by.
      note: how the slices are to be read; may be empty.
      names: of the slices.
      of_request: `[R]`, each request's slice.
    """

    title: str
    note: str
    names: Sequence[str]
    of_request: np.ndarray


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some of the requests, their share of all, and the scorers on them."""

    name: str
    share: float
    comparison: Comparison


def by_length(domain: str, lengths: np.ndarray, max_history: int) -> Slicing:
    """Requests by the length of their history in a domain.

    Args:
      lengths: `[R]`, of the histories that records hold.
      max_history: at which these are cut: longer ones are in the last slice, which is open.
    """
    starts = [start for start in LENGTH_STARTS if start <= max_history]
    names = [_range(low, high - 1) for low, high in itertools.pairwise(starts)]
    return Slicing(
        f"length of the {domain} history",
        f"Records keep the newest {max_history} items of a history.",
        [*names, f"{starts[-1]}+"],
        np.searchsorted(starts, lengths, "right") - 1,
    )


def by_popularity(predictions: Predictions, clicks: np.ndarray) -> Slicing:
    """Requests by the clicks in training of the item that was clicked, of several the rarest.

    Beside the slices of equal size there is one of items without a click in training, and where
    some requests have no click one of these.

    Args:
      clicks: `[V]`, in training, of each target item id.
    """
    rarest = np.full(len(predictions.user), np.inf)
    clicked = predictions.label > 0
    np.minimum.at(rarest, predictions.request[clicked], clicks[predictions.candidate[clicked]])
    without_click = np.isinf(rarest)
    known = rarest[(rarest > 0) & ~without_click]
    ends: list[int] = []
    if len(known):
        parts = np.arange(1, POPULARITY_PARTS) / POPULARITY_PARTS
        found = np.unique(np.quantile(known, parts, method="inverted_cdf"))
        ends = found[found < known.max()].astype(int).tolist()
    lows = [1, *(end + 1 for end in ends)]
    names = ["0", *map(_range, lows, ends), f"{lows[-1]}+"]
    of_request = np.where(rarest > 0, 1 + np.searchsorted(ends, rarest, "left"), 0)
    of_request[without_click] = len(names)
    if without_click.any():
        names.append("no click")
    return Slicing(
        "popularity of the clicked item",
        "By its clicks in training, of several clicked items the rarest's. Candidates beside "
        "it have any.",
        names,
        of_request,
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def check_same_candidates(scored: Sequence[Predictions]) -> None:
    """Raises InputError unless all are of the same candidates in the same order."""
    for other in scored[1:]:
        for name in ("request", "candidate", "label", "user"):
            if not np.array_equal(getattr(other, name), getattr(scored[0], name)):
                raise InputError(
                    f"the runs' predictions differ in {name}: they are not of the same requests",
                    "evaluate all runs again on the same data set and split",
                )


def compare_all(scored: Sequence[Sequence[Predictions]]) -> Comparison:
    """The first model against each other one, on all requests.

    Args:
      scored: of each model, the predictions of each of its trainings; all of the same candidates.
    """
    return _compare(scored, slice(None))


def compare_slices(scored: Sequence[Sequence[Predictions]], slicing: Slicing) -> list[Slice]:
    """The same on each slice, an empty one too."""
    request = scored[0][0].request
    number = slicing.of_request[request]
    whole = len(np.unique(request))
    compared = [_compare(scored, number == n) for n in range(len(slicing.names))]
    return [
        Slice(name, of_slice.requests / whole, of_slice)
        for name, of_slice in zip(slicing.names, compared, strict=True)
    ]


def _compare(scored: Sequence[Sequence[Predictions]], rows: np.ndarray | slice) -> Comparison:
    first = scored[0][0]
    request = first.request[rows]
    probabilities = [np.stack([one.probability[rows] for one in of_model]) for of_model in scored]
    return compare(first.label[rows], probabilities, request, first.user[request])
