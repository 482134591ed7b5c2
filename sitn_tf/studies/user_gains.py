"""Predictions that a study's runs keep → its arms' gains, by a paired bootstrap of users.

A bootstrap of users says how far other users would move the difference of these very trainings; a
t-test over seeds says how far other trainings would. Neither says what the other does.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, slices
from sitn_tf.evaluation.comparison import DRAWS, holm, judge
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.studies.runs import Study
from sitn_tf.studies.tables import Result, UserGain

_SHARED = ("request", "candidate", "label", "user", "source_length", "target_length")


@dataclasses.dataclass(frozen=True)
class Kept:
    """What the runs of a study keep.

    Attributes:
      by_run: by arm and seed, all of the same candidates.
      missing: of each run without, why.
    """

    by_run: Mapping[tuple[str, int], Predictions]
    missing: Sequence[str] = ()

    def seeds(self, arm: str) -> list[int]:
        return sorted(seed for name, seed in self.by_run if name == arm)


def read(study: Study, results: Iterable[Result]) -> Kept:
    """What the runs of these results keep of the study's split; nothing without a stage 2.

    Raises:
      InputError: they are not of the same requests.
    """
    found: dict[tuple[str, int], Predictions] = {}
    missing = []
    finished = {(result.arm, result.seed) for result in results}
    for run in study.runs() if study.stage == "2" else ():
        if (run.arm, run.seed) not in finished:
            continue
        try:
            kept = kept_predictions.read(run.stage2, study.split)
        except InputError as error:
            missing.append(f"{run.arm}, seed {run.seed}: {error}")
            continue
        if found:
            first = next(iter(found.values()))
            slices.check_same_candidates([first, kept])
            # One copy of what is the same: a study may have a hundred runs.
            shared = {name: getattr(first, name) for name in _SHARED}
            kept = dataclasses.replace(kept, **shared, logged_score=None)
        found[run.arm, run.seed] = kept
    return Kept(found, missing)


def user_gains(kept: Kept, arms: Sequence[str], draws: int = DRAWS) -> dict[str, UserGain]:
    """The arms that keep predictions of a seed that the first one keeps some of too, by name."""
    baseline, *others = arms
    paired = {
        arm: seeds for arm in others
        if (seeds := [seed for seed in kept.seeds(arm) if (baseline, seed) in kept.by_run])
    }  # fmt: skip
    if not paired:
        return {}
    chosen = {run: scored for run, scored in kept.by_run.items() if run[0] in {baseline, *paired}}
    number = {run: n for n, run in enumerate(chosen)}
    first = next(iter(kept.by_run.values()))
    found = judge(
        first.label,
        [scored.probability for scored in chosen.values()],
        first.request,
        first.user[first.request],
        draws,
    )
    gains = [
        found.gain([number[arm, s] for s in seeds], [number[baseline, s] for s in seeds])
        for arm, seeds in paired.items()
    ]
    corrected = holm(np.array([gain.p for gain in gains]))
    return {
        arm: UserGain(gain, float(p)) for arm, gain, p in zip(paired, gains, corrected, strict=True)
    }
