"""Histories of one model's trainings → a line of a picture: the mean over seeds, with a band."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf.pages.pictures import Line

Entry = Mapping[str, Any]
"""What a run's history says of an epoch."""


def mean_line(
    name: str, histories: Sequence[Sequence[Entry]], value: Callable[[Entry], float]
) -> Line | None:
    """Over seeds, as far as the shortest of them goes; the band is from the lowest to the highest.

    Args:
      histories: of each seed, an entry an epoch; empty ones do not count.
      value: what is drawn of an entry.
    """
    seeds = [entries for entries in histories if entries]
    if not seeds:
        return None
    values = np.array([[value(entry) for entry in epoch] for epoch in zip(*seeds, strict=False)])
    band = (values.min(axis=1), values.max(axis=1)) if len(seeds) > 1 else ()
    epochs = [entry["epoch"] for entry in seeds[0][: len(values)]]
    return Line(name, epochs, values.mean(axis=1), *band)


def click_loss(entry: Entry) -> float:
    """In training; the whole loss where it is nothing else, NaN where there was none."""
    return float(entry.get("click", entry.get("loss", math.nan)))
