"""Results of a study → differences paired by seed, and tables of them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sitn_tf import schema
from sitn_tf.commit import UNKNOWN
from sitn_tf.evaluation import metrics, retrieval
from sitn_tf.evaluation.comparison import Gain, holm
from sitn_tf.pages.page import Table
from sitn_tf.pages.pictures import signed
from sitn_tf.studies.significance import interval, paired_t_test

RACE = "race"
"""Among a run's seconds: of the starts that lost their race."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
      score: AUC on the study's split, or without a stage 2 the held-out recall@10.
      recall, chance: of stage 1's held-out retrieval, NaN without a stage 1.
      metrics: all of the split's, by name; none without a stage 2.
      epoch: the best one, by stage.
      seconds: of the training steps of all epochs, by stage, and of a RACE; a shared stage 1 counts
        in each run.
      parameters: numbers that stage 2 trains, without frozen ones; None without a stage 2.
      commit: of the code that began the run, of stage 1 where that is all.
    """

    arm: str
    seed: int
    score: float
    recall: float = math.nan
    chance: float = math.nan
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    epoch: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    parameters: int | None = None
    commit: str = UNKNOWN


class UserGain(NamedTuple):
    """An arm and the baseline by a paired bootstrap of users (studies/user_gains.py).

    Attributes:
      gain: of the mean AUC over the seeds whose predictions both keep.
      corrected: its p by Holm's correction over all arms.
    """

    gain: Gain
    corrected: float


NOT_KEPT = "not kept"
"""Stands for a gain over users where a run keeps no predictions."""


NO_SPREAD = "no spread"
"""Stands for a p-value where all seeds have the very same difference."""


class Comparison(NamedTuple):
    """An arm and the baseline over the seeds that both have.

    Attributes:
      mean, half: of the differences, with the 95 % interval's half-width.
      p, corrected: of the paired t-test, and Holm's correction of it over all arms.

    All but the mean are NaN for one seed, and p where several have the very same difference.
    """

    mean: float
    half: float
    p: float
    corrected: float


def comparisons(results: Sequence[Result], arms: Sequence[str]) -> dict[str, Comparison]:
    """The arms that share a seed with the first one, by name."""
    scores = {arm: {r.seed: r.score for r in results if r.arm == arm} for arm in arms}
    baseline = scores[arms[0]]
    shared = {
        arm: np.array([s - baseline[seed] for seed, s in sorted(scores[arm].items())
                       if seed in baseline])
        for arm in arms[1:] if scores[arm].keys() & baseline.keys()
    }  # fmt: skip
    tests = np.array([paired_t_test(differences) for differences in shared.values()])
    return {
        arm: Comparison(*interval(differences), p, corrected)
        for (arm, differences), p, corrected in zip(shared.items(), tests, holm(tests), strict=True)
    }


def main_table(
    results: Sequence[Result],
    arms: Sequence[str],
    measure: str,
    over_users: Mapping[str, UserGain] | None = None,
) -> Table:
    """An arm a row, with its `Comparison` to the first.

    Args:
      measure: what the results' scores are.
      over_users: of arms whose predictions are kept; None where there is nothing to keep.
    """
    compared = comparisons(results, arms)
    titles = ["arm", "seeds", f"{measure}, mean ± sd", f"minus {arms[0]}, 95 % interval"]
    titles += ["p, paired t-test", "p, Holm"]
    titles += ["over users, 95 % interval", "p, bootstrap of users", "p over users, Holm"]
    rows = []
    for arm in arms:
        scores = [r.score for r in results if r.arm == arm]
        shown = [arm, str(len(scores)), _spread(".4f", scores) or "not run"]
        if arm in compared:
            mean, half, *p_values = compared[arm]
            shown.append(signed(mean) + ("" if math.isnan(half) else f" ± {half:.4f}"))
            unjudged = "" if math.isnan(half) else NO_SPREAD
            shown += [_p(p) or unjudged for p in p_values]
            shown += [] if over_users is None else _over_users(over_users.get(arm))
        rows.append(shown)
    return _filled("Means over seeds", titles, rows)


def _over_users(found: UserGain | None) -> list[str]:
    if found is None:
        return [NOT_KEPT]
    return [found.gain.told, _p(found.gain.p), _p(found.corrected)]


def other_measures(results: Sequence[Result], arms: Sequence[str]) -> Table:
    """An arm that was run a row, with mean ± sd of what else is known of its runs.

    Seconds are those of stage 1 + stage 2, and + the starts that lost a race.
    """
    titles = ["arm", *metrics.TITLES.values()]
    titles += ["parameters", "seconds", "each", "best epochs", "lift"]
    rows = []
    for arm in arms:
        runs = [r for r in results if r.arm == arm]
        rows.append(
            [
                arm,
                *(_spread(".4f", [r.metrics.get(name) for r in runs]) for name in metrics.TITLES),
                _spread(",.0f", [r.parameters for r in runs]),
                _spread(".0f", [sum(r.seconds.values()) or None for r in runs]),
                _by_stage(".0f", [r.seconds for r in runs]),
                _by_stage(".1f", [r.epoch for r in runs]),
                _spread(".1f", [retrieval.lift(r.recall, r.chance) for r in runs]),
            ]
        )
    return _filled("Mean ± standard deviation over seeds", titles, [r for r in rows if any(r[1:])])


def _filled(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without the columns that are empty in all rows.

    Args:
      rows: of cells; the last ones may be missing.
    """
    filled = [[*row, *[""] * (len(titles) - len(row))] for row in rows]
    said = [n for n in range(len(titles)) if any(row[n] for row in filled)]
    return Table(caption, [titles[n] for n in said], [[row[n] for n in said] for row in filled])


def _spread(form: str, values: Sequence[float | None]) -> str:
    """Mean ± sd of those there; of infinite ones no sd, of counts only where they differ."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return ""
    alone = len(known) == 1 or not all(map(math.isfinite, known))
    alone = alone or (isinstance(known[0], int) and len(set(known)) == 1)
    return f"{np.mean(known):{form}}" + ("" if alone else f" ± {np.std(known, ddof=1):{form}}")


def _by_stage(form: str, values: Sequence[Mapping[str, float]]) -> str:
    """Means of stage 1 + stage 2 + races, of those that are there."""
    parts = [
        [value[stage] for value in values if stage in value]
        for stage in (schema.STAGE1, schema.STAGE2, RACE)
    ]
    return " + ".join(f"{np.mean(part):{form}}" for part in parts if part)


def _p(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
