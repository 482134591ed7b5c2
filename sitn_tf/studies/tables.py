"""Results of a study → differences paired by seed, and a Markdown table."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from sitn_tf import schema
from sitn_tf.evaluation import retrieval
from sitn_tf.pictures import signed


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
      score: AUC on the study's split, or without a stage 2 the held-out recall@10.
      recall, chance: of stage 1's held-out retrieval, NaN without a stage 1.
      metrics: all of the split's, by name; none without a stage 2.
      epoch: the best one, by stage.
      seconds: of the training steps of all epochs, by stage; a shared stage 1 counts in each run.
    """

    arm: str
    seed: int
    score: float
    recall: float = math.nan
    chance: float = math.nan
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    epoch: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of Student's t; NaN for one difference.

    Args:
      differences: `[seeds]`, of an arm and the baseline with the same seed.
    """
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    if n < 2:
        return mean, math.nan
    quantile = stats.t.ppf(0.975, df=n - 1)
    return mean, float(quantile * np.std(differences, ddof=1) / math.sqrt(n))


def differences(results: Sequence[Result], arm: str, baseline: str) -> np.ndarray:
    """`[seeds]`: an arm's scores minus the baseline's, over the seeds that both have, ascending."""
    ours, theirs = ({r.seed: r.score for r in results if r.arm == name} for name in (arm, baseline))
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def table(results: Sequence[Result], arms: Sequence[str], measure: str) -> str:
    """Markdown of `rows`."""
    titles, *body = rows(results, arms, measure)
    lines = [titles, ["---"] * len(titles), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows(results: Sequence[Result], arms: Sequence[str], measure: str) -> list[list[str]]:
    """Titles, then an arm a row, with its difference to the first arm over the shared seeds.

    Beside these the means of what else is known of the runs; columns that say nothing of any arm
    are left out.

    Args:
      measure: what the results' scores are.
    """
    titles = [
        "arm",
        "seeds",
        f"{measure}, mean ± sd",
        f"minus {arms[0]}, 95 % interval",
        "GAUC",
        "log loss",
        "lift",
        "best epoch",
        "seconds",
    ]
    lines = [titles]
    for arm in arms:
        runs = [r for r in results if r.arm == arm]
        if not runs:
            lines.append([arm, "0", "not run", *[""] * (len(titles) - 3)])
            continue
        scores = np.array([r.score for r in runs])
        spread = f" ± {np.std(scores, ddof=1):.4f}" if len(scores) > 1 else ""
        shared = differences(results, arm, arms[0])
        mean, half = interval(shared)
        margin = "" if math.isnan(half) else f" ± {half:.4f}"
        difference = "" if arm == arms[0] or not len(shared) else f"{signed(mean)}{margin}"
        lines.append(
            [
                arm,
                str(len(scores)),
                f"{np.mean(scores):.4f}{spread}",
                difference,
                _mean(".4f", (r.metrics.get("gauc") for r in runs)),
                _mean(".4f", (r.metrics.get("log_loss") for r in runs)),
                _mean(".1f", (retrieval.lift(r.recall, r.chance) for r in runs)),
                _by_stage(".1f", [r.epoch for r in runs]),
                _by_stage(".0f", [r.seconds for r in runs]),
            ]
        )
    said = [n for n in range(len(titles)) if n < 4 or any(line[n] for line in lines[1:])]
    return [[line[n] for n in said] for line in lines]


def _mean(form: str, values: Iterable[float | None]) -> str:
    """Of the values that are there, "" if none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return f"{np.mean(known):{form}}" if known else ""


def _by_stage(form: str, values: Sequence[Mapping[str, float]]) -> str:
    """Means of stage 1 + stage 2, of those that are there."""
    means = [
        _mean(form, (value.get(stage) for value in values))
        for stage in (schema.STAGE1, schema.STAGE2)
    ]
    return " + ".join(filter(None, means))
