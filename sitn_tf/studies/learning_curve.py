"""The arms of a study, each with several shares of the labels → a table and a picture.

An arm with a share is an arm of its own, `<arm>.labels_<share>` (with all labels `<arm>`), which
learns from that share of stage 2's training requests (`stage2.label_share`). What a stage 1 learns
needs no labels, so all shares start from the same one.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from sitn_tf.errors import InputError
from sitn_tf.pages.page import Section, Table
from sitn_tf.pages.pictures import Line, curves, signed
from sitn_tf.studies.arms import Arm
from sitn_tf.studies.significance import interval
from sitn_tf.studies.tables import Result, comparisons


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """What is compared at which shares.

    Attributes:
      arms: of the study, by name, the baseline first.
      shares: ascending, above 0 and at most 1.
    """

    arms: Mapping[str, Arm]
    shares: Sequence[float]

    @property
    def every_arm(self) -> dict[str, Arm]:
        """By name, share by share."""
        return {
            name_at(name, share): arm
            if share == 1
            else dataclasses.replace(arm, settings=(*arm.settings, f"stage2.label_share={share!r}"))
            for share in self.shares
            for name, arm in self.arms.items()
        }

    @property
    def groups(self) -> list[list[str]]:
        """Names of arms that are compared with each other, share by share."""
        return [[name_at(name, share) for name in self.arms] for share in self.shares]

    def at(self, share: float, results: Sequence[Result]) -> list[Result]:
        """The results with a share, by the arms' own names."""
        own = {name_at(name, share): name for name in self.arms}
        return [
            dataclasses.replace(result, arm=own[result.arm])
            for result in results
            if result.arm in own
        ]


def name_at(arm: str, share: float) -> str:
    return arm if share == 1 else f"{arm}.labels_{share!r}"


def read_shares(texts: Sequence[str]) -> list[float]:
    """Shares of `--labels`, ascending, each once.

    Raises:
      InputError: one is no number above 0 and at most 1.
    """
    for text in texts:
        if not re.fullmatch(r"\s*\d*\.?\d+([eE]-?\d+)?\s*", text) or not 0 < float(text) <= 1:
            raise InputError(f"labels={text} is not a number above 0 and at most 1")
    return sorted({float(text) for text in texts})


def section(
    curve: LearningCurve,
    results: Sequence[Result],
    measure: str,
    labels: Mapping[float, int],
) -> Section:
    """A row a share, and AUC over the number of labels.

    Args:
      measure: what the results' scores are.
      labels: how many training requests a share is, as far as it is known.
    """
    baseline, *others = curve.arms
    head = ["share of labels", "training requests"]
    head += [*curve.arms, *(f"{arm} minus {baseline}" for arm in others)]
    rows, points = [], {arm: list[tuple[float, float, float]]() for arm in curve.arms}
    gained = []
    for share in curve.shares:
        found = curve.at(share, results)
        compared = comparisons(found, list(curve.arms))
        row = [f"{share:.4g}", f"{labels[share]:,}" if share in labels else ""]
        for arm in curve.arms:
            scores = np.array([result.score for result in found if result.arm == arm])
            mean, half = interval(scores) if len(scores) else (math.nan, math.nan)
            row.append("not run" if math.isnan(mean) else _with_half(f"{mean:.4f}", half))
            if share in labels and not math.isnan(mean):
                points[arm].append((labels[share], mean, half))
        row += [
            _with_half(signed(compared[arm].mean), compared[arm].half) if arm in compared else ""
            for arm in others
        ]
        rows.append(row)
        if compared:
            best = max(compared, key=lambda arm: compared[arm].mean)
            gained.append(f"{best} {signed(compared[best].mean)} at {share:.4g}")
    return Section(
        "Learning curve",
        f"Largest difference to {baseline} in {measure} by share of the labels: "
        f"{'; '.join(gained) or 'none yet'}.",
        [
            f"Means over seeds of {measure}, and of differences paired by seed, with the 95 % "
            "interval of Student's t. A share keeps what smaller ones keep.",
            Table("A row a share of stage 2's training requests", head, rows),
            curves(
                "By number of labels",
                [_line(arm, of_arm) for arm, of_arm in points.items() if of_arm],
                "training requests",
                measure,
                log_x=True,
            ),
        ],
    )


def _line(arm: str, points: Sequence[tuple[float, float, float]]) -> Line:
    """With a band where every point has an interval."""
    x, mean, half = np.array(points).T
    band = () if np.isnan(half).any() else (mean - half, mean + half)
    return Line(arm, x, mean, *band)


def _with_half(text: str, half: float) -> str:
    return text if math.isnan(half) else f"{text} ± {half:.4f}"
