"""Results of a study → differences paired by seed, and a Markdown table."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
      score: AUC on the study's split, or without a stage 2 the held-out recall@10.
      recall, chance: of stage 1's held-out retrieval, NaN without a stage 1.
    """

    arm: str
    seed: int
    score: float
    recall: float = math.nan
    chance: float = math.nan


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


def table(results: Sequence[Result], arms: Sequence[str], measure: str) -> str:
    """Markdown: an arm a row, with its difference to the first arm over the shared seeds.

    Args:
      measure: what the results' scores are.
    """
    by_arm = {arm: {r.seed: r for r in results if r.arm == arm} for arm in arms}
    baseline = by_arm[arms[0]]
    lines = [
        f"| arm | seeds | {measure}, mean ± sd | minus {arms[0]}, 95 % interval | "
        "held-out recall@10 (chance) |",
        "|---|---|---|---|---|",
    ]
    for arm in arms:
        by_seed = by_arm[arm]
        if not by_seed:
            lines.append(f"| {arm} | 0 | not run | | |")
            continue
        scores = np.array([r.score for r in by_seed.values()])
        spread = f" ± {np.std(scores, ddof=1):.4f}" if len(scores) > 1 else ""
        shared = sorted(by_seed.keys() & baseline.keys())
        mean, half = interval(np.array([by_seed[s].score - baseline[s].score for s in shared]))
        margin = "" if math.isnan(half) else f" ± {half:.4f}"
        difference = "" if arm == arms[0] or not shared else f"{mean:+.4f}{margin}"
        recalls = [r.recall for r in by_seed.values() if not math.isnan(r.recall)]
        chance = next(iter(by_seed.values())).chance
        recall = f"{np.mean(recalls):.3f} ({chance:.3f})" if recalls else ""
        lines.append(
            f"| {arm} | {len(scores)} | {np.mean(scores):.4f}{spread} | {difference} | {recall} |"
        )
    return "\n".join(lines)
