"""Finished runs with their kept predictions → what the first gains over the others, and loses.

Whether a user's own source histories and stage 1 help is a question of slices too: a mean gain may
hide users whom transfer hurts (negative transfer).
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sitn_tf import config as configs
from sitn_tf import runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, slices
from sitn_tf.evaluation.comparison import Comparison, Gain, holm
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.evaluation.slices import Slice, Slicing
from sitn_tf.item_tables import read_item_table
from sitn_tf.sections import Stage2Config

LEVEL = 0.05

ALL_REQUESTS = "all requests"
"""Where a run is worse, if not at a slice alone."""


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A finished stage-2 run.

    Attributes:
      name: as short as tells it from the others.
      config: of what was trained; `info` and `race` say how it came about (None without a race).
      metrics: of the split that is compared.
      history: an entry an epoch.
    """

    name: str
    run_dir: pathlib.Path
    config: configs.Config
    info: runs.RunInfo
    race: dict[str, Any] | None
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    predictions: Predictions


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The first run beside the others.

    Attributes:
      overall: on all requests of the split.
      by_slice: the same on the slices of each slicing.
    """

    split: str
    manifest: schema.Manifest
    runs: Sequence[ComparedRun]
    overall: Comparison
    by_slice: Sequence[tuple[Slicing, Sequence[Slice]]]

    @property
    def judged(self) -> ComparedRun:
        return self.runs[0]

    @property
    def others(self) -> Sequence[ComparedRun]:
        return self.runs[1:]

    def slices(self) -> Iterator[tuple[Slicing, Slice]]:
        """Every slice of every slicing."""
        for slicing, parts in self.by_slice:
            for part in parts:
                yield slicing, part


def compare(
    run_dirs: Sequence[pathlib.Path],
    split: str,
    read: Callable[[pathlib.Path, str], Predictions] = kept_predictions.read,
) -> Transfer:
    """What the first run gains over each other one.

    Args:
      read: gives the predictions of a run on a split; it may write metrics of the run too.

    Raises:
      InputError: predictions were not kept, or not of the same candidates.
    """
    scored = [read(run_dir, split) for run_dir in run_dirs]
    compared = [
        ComparedRun(
            name=name,
            run_dir=run_dir,
            config=runs.read_config(run_dir),
            info=runs.read_info(run_dir),
            race=runs.read_json(run_dir / runs.RACE_FILE, None),
            metrics=runs.read_json(run_dir / runs.METRICS_FILE, {}).get(split, {}),
            history=runs.read_history(run_dir),
            predictions=predictions,
        )
        for name, run_dir, predictions in zip(short_names(run_dirs), run_dirs, scored, strict=True)
    ]
    slices.check_same_candidates(scored)
    manifest = runs.read_manifest(run_dirs[0])
    clicks = read_item_table(run_dirs[0], manifest, schema.TARGET, (), 0).count
    first, longest = scored[0], manifest.max_history
    slicings = [
        slices.by_length(schema.TARGET, first.target_length, longest),
        slices.by_length(schema.SOURCE, first.source_length, longest),
        slices.by_popularity(first, clicks),
    ]
    return Transfer(
        split=split,
        manifest=manifest,
        runs=compared,
        overall=slices.compare_all(scored),
        by_slice=[(slicing, slices.compare_slices(scored, slicing)) for slicing in slicings],
    )


def short_names(run_dirs: Sequence[pathlib.Path]) -> list[str]:
    """The parts of paths that tell runs apart: `a/sitn/stage2` and `a/din/stage2` as sitn, din.

    Raises:
      InputError: one run is named twice.
    """
    parts = [pathlib.Path(os.path.abspath(run_dir)).parts for run_dir in run_dirs]
    for n, run_dir in enumerate(run_dirs):
        if parts[n] in parts[:n]:
            raise InputError(f"run_dir={run_dir} is given twice", "name each run once")
    shortest = min(map(len, parts))
    ahead = min(_shared(parts), shortest - 1)
    behind = min(_shared([names[::-1] for names in parts]), shortest - 1 - ahead)
    return ["/".join(names[ahead : len(names) - behind]) for names in parts]


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many parts all paths begin with."""
    alike = (len({*level}) == 1 for level in zip(*paths, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, alike))


@dataclasses.dataclass(frozen=True)
class Harm:
    """A slice, or the whole, where the first run is worse than another.

    Attributes:
      where: the slice in words.
      sure: whether that holds among all slices of the comparison, by Holm's correction.
      remedy: the same wherever the run is worse than this other one.
    """

    other: ComparedRun
    where: str
    comparison: Comparison
    gain: Gain
    sure: bool
    remedy: str


def harms(transfer: Transfer) -> list[Harm]:
    """Wherever an interval lies below 0 as a whole: of all requests first, then slice by slice."""
    found = []
    for k, other in enumerate(transfer.others):
        whole = transfer.overall.gains[k]
        remedy = _remedy(transfer.judged, other, whole)
        if whole.hurts:
            found.append(Harm(other, ALL_REQUESTS, transfer.overall, whole, True, remedy))
        told = [(s, part, part.comparison.gains[k]) for s, part in transfer.slices()]
        corrected = holm(np.array([gain.p for _, _, gain in told]))
        for (slicing, part, gain), p in zip(told, corrected, strict=True):
            if gain.hurts:
                where = f"{slicing.title} {part.name}"
                found.append(Harm(other, where, part.comparison, gain, p < LEVEL, remedy))
    return found


def judged_slices(transfer: Transfer) -> int:
    """How many slices have users enough for an interval."""
    return sum(part.comparison.enough for _, part in transfer.slices())


def instead(judged: ComparedRun, other: ComparedRun) -> str:
    """How to have what another run has and the judged one has not."""
    if other.config.seed != judged.config.seed:
        return "first compare runs of the same seed: seeds move AUC too"
    if other.config.model.name != judged.config.model.name:
        return f"train and serve that model: --set model.name={other.config.model.name}"
    if judged.config.model.use_source and not other.config.model.use_source:
        found = "leave the source histories out: --set model.use_source=false"
    elif judged.info.init != runs.NO_INIT == other.info.init:
        found = "start from scratch: --init=none"
    else:
        return f"serve {other.name}"
    if judged.race:
        return f"{found} (the race of starts saw nothing of it on validation data)"
    steps = Stage2Config().race_steps
    return f"{found}, or let the starts race: --set stage2.race_steps={steps}"


def _remedy(judged: ComparedRun, other: ComparedRun, overall: Gain) -> str:
    """`instead`, unless the judged run gains overall and only some of its slices are hurt."""
    if not overall.low > 0:
        return instead(judged, other)
    lengths = ",".join(schema.LENGTH_OF_DOMAIN.values())
    gate = ", or --set sitn.source_gate=true" if judged.config.model.name == "sitn" else ""
    return (
        "overall it gains, so keep it; what lets the score weigh the histories by what they hold "
        f"may help: --set model.request_features={lengths}{gate}"
    )
