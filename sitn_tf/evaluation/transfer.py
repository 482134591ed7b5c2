"""Finished runs with their kept predictions → what the first gains over the others, and loses.

Whether a user's own source histories and stage 1 help is a question of slices too: a mean gain may
hide users whom transfer hurts (negative transfer).
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf import config as configs
from sitn_tf import runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, slices
from sitn_tf.evaluation.comparison import SIGNIFICANT, Comparison, Gain, holm
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.evaluation.slices import Slice, Slicing
from sitn_tf.item_tables import read_item_table
from sitn_tf.runs import RunInfo
from sitn_tf.sections import Stage2Config

ALL_REQUESTS = "all requests"
"""Where a run is worse, if not at a slice alone."""


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A finished stage-2 run.

    Attributes:
      config: of what was trained; `info` and `race` say how it came about (None without a race).
      metrics: of the split that is compared.
      history: an entry an epoch.
    """

    run_dir: pathlib.Path
    config: configs.Config
    info: runs.RunInfo
    race: dict[str, Any] | None
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    predictions: Predictions


@dataclasses.dataclass(frozen=True)
class Contender:
    """A model in one run, or in several that differ in their seeds alone.

    Attributes:
      name: as short as tells it from the others.
      runs: of a seed each, one at least.
    """

    name: str
    runs: Sequence[ComparedRun]

    @property
    def config(self) -> configs.Config:
        return self.runs[0].config

    @property
    def info(self) -> RunInfo:
        return self.runs[0].info

    @property
    def race(self) -> dict[str, Any] | None:
        return self.runs[0].race

    @property
    def seeds(self) -> list[int]:
        return [run.config.seed for run in self.runs]

    @property
    def predictions(self) -> list[Predictions]:
        """Of each run."""
        return [run.predictions for run in self.runs]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The first model beside the others.

    Attributes:
      overall: on all requests of the split, mean AUC over each model's runs.
      by_slice: the same on the slices of each slicing.
    """

    split: str
    manifest: schema.Manifest
    contenders: Sequence[Contender]
    overall: Comparison
    by_slice: Sequence[tuple[Slicing, Sequence[Slice]]]

    @property
    def judged(self) -> Contender:
        return self.contenders[0]

    @property
    def others(self) -> Sequence[Contender]:
        return self.contenders[1:]

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
    """What the first run gains over each other one; see `compare_models`."""
    named = zip(short_names(run_dirs), run_dirs, strict=True)
    return compare_models({name: [run_dir] for name, run_dir in named}, split, read)


def compare_models(
    run_dirs: Mapping[str, Sequence[pathlib.Path]],
    split: str,
    read: Callable[[pathlib.Path, str], Predictions] = kept_predictions.read,
) -> Transfer:
    """What the first model gains over each other one.

    Args:
      run_dirs: of each model by name, a run a seed.
      read: gives the predictions of a run on a split; it may write metrics of the run too.

    Raises:
      InputError: predictions were not kept, or not of the same candidates.
    """
    compared = [
        Contender(name, [_compared_run(run_dir, split, read(run_dir, split)) for run_dir in dirs])
        for name, dirs in run_dirs.items()
    ]
    scored = [contender.predictions for contender in compared]
    slices.check_same_candidates([one for of_model in scored for one in of_model])
    run_dir = compared[0].runs[0].run_dir
    manifest = runs.read_manifest(run_dir)
    clicks = read_item_table(run_dir, manifest, schema.TARGET, (), 0).count
    first, longest = scored[0][0], manifest.max_history
    slicings = [
        slices.by_length(schema.TARGET, first.target_length, longest),
        slices.by_length(schema.SOURCE, first.source_length, longest),
        slices.by_popularity(first, clicks),
    ]
    return Transfer(
        split=split,
        manifest=manifest,
        contenders=compared,
        overall=slices.compare_all(scored),
        by_slice=[(slicing, slices.compare_slices(scored, slicing)) for slicing in slicings],
    )


def _compared_run(run_dir: pathlib.Path, split: str, predictions: Predictions) -> ComparedRun:
    return ComparedRun(
        run_dir=run_dir,
        config=runs.read_config(run_dir),
        info=runs.read_info(run_dir),
        race=runs.read_json(run_dir / runs.RACE_FILE, None),
        metrics=runs.read_json(run_dir / runs.METRICS_FILE, {}).get(split, {}),
        history=runs.read_history(run_dir),
        predictions=predictions,
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
      sure: whether that holds by Holm's correction: of a slice among all slices of the comparison,
        of all requests among the models that the first is compared with.
      remedy: the same wherever the run is worse than this other one.
    """

    other: Contender
    where: str
    comparison: Comparison
    gain: Gain
    sure: bool
    remedy: str


def harms(transfer: Transfer) -> list[Harm]:
    """Wherever an interval lies below 0 as a whole: of all requests first, then slice by slice."""
    found = []
    overall = holm(np.array([gain.p for gain in transfer.overall.gains]))
    for k, other in enumerate(transfer.others):
        whole = transfer.overall.gains[k]
        remedy = _remedy(transfer.judged, other, whole)
        if whole.hurts:
            sure = bool(overall[k] < SIGNIFICANT)
            found.append(Harm(other, ALL_REQUESTS, transfer.overall, whole, sure, remedy))
        told = [(s, part, part.comparison.gains[k]) for s, part in transfer.slices()]
        corrected = holm(np.array([gain.p for _, _, gain in told]))
        for (slicing, part, gain), p in zip(told, corrected, strict=True):
            if gain.hurts:
                where = f"{slicing.title} {part.name}"
                found.append(Harm(other, where, part.comparison, gain, p < SIGNIFICANT, remedy))
    return found


def judged_slices(transfer: Transfer) -> int:
    """How many slices have users enough for an interval."""
    return sum(part.comparison.enough for _, part in transfer.slices())


def instead(judged: Contender, other: Contender) -> str:
    """How to have what another model has and the judged one has not."""
    if other.seeds != judged.seeds:
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


def _remedy(judged: Contender, other: Contender, overall: Gain) -> str:
    """`instead`, unless the judged run gains overall and only some of its slices are hurt."""
    if not overall.low > 0:
        return instead(judged, other)
    lengths = ",".join(schema.LENGTH_OF_DOMAIN.values())
    gate = ", or --set sitn.source_gate=true" if judged.config.model.name == "sitn" else ""
    return (
        "overall it gains, so keep it; what lets the score weigh the histories by what they hold "
        f"may help: --set model.request_features={lengths}{gate}"
    )
