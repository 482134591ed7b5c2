"""Histories and kept predictions of a study's arms → sections of curves: training, calibration.

The baseline is in every picture, with so many other arms as can be told apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from sitn_tf.evaluation import calibration_curves, training_curves
from sitn_tf.pages.page import Section
from sitn_tf.pages.pictures import Bins, Line, calibration, curves
from sitn_tf.studies.user_gains import Kept

ARMS = 5
"""Beside the baseline in one picture."""

Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""By arm, of each seed, an entry an epoch."""

DrawnT = TypeVar("DrawnT")


def training(histories: Histories, groups: Sequence[Sequence[str]], history: str) -> Section:
    """What the model is judged by, and its loss, epoch by epoch.

    Args:
      groups: of arms by name, each with its baseline first; they have no picture in common.
      history: the entry that says how good the model is.
    """
    arms = [arm for group in groups for arm in group]
    measure = history.upper() if history == "auc" else history
    judged = {
        arm: training_curves.mean_line(
            arm, histories.get(arm, ()), lambda entry: entry.get(history, np.nan)
        )
        for arm in arms
    }
    lost = {
        arm: training_curves.mean_line(arm, histories.get(arm, ()), training_curves.click_loss)
        for arm in arms
    }
    lines = {arm: line for arm, line in judged.items() if line}
    best = {arm: int(np.nanargmax(line.y)) for arm, line in lines.items()}
    said = "; ".join(
        f"{arm} {lines[arm].y[at]:.4f} at epoch {lines[arm].x[at]}"
        for arm, at in sorted(best.items(), key=lambda place: -lines[place[0]].y[place[1]])[:3]
    )
    of_loss = "Click loss" if history == "auc" else "Loss"
    drawn = {
        f"Validation {measure}": (f"validation {measure}", judged),
        f"{of_loss} in training": ("loss", lost),
    }
    return Section(
        "Training",
        f"Highest means on validation data: {said or 'none yet'}.",
        [
            "Means over seeds, as far as all seeds were trained, with a band from the lowest seed "
            "to the highest.",
            *(
                curves(f"{caption}: {_names(part)}", part, "epoch", y_title)
                for caption, (y_title, of_arm) in drawn.items()
                for group in groups
                for part in _parts([of_arm[arm] for arm in group])
            ),
        ],
    )


def calibrations(kept: Kept, groups: Sequence[Sequence[str]]) -> Section:
    """Predicted against observed click rates of all seeds' kept predictions together.

    Args:
      groups: as in `training`; one arm of them at least keeps predictions.
    """
    found = {}
    for arm in (arm for group in groups for arm in group):
        trainings = [kept.by_run[arm, seed] for seed in kept.seeds(arm)]
        if trainings:
            found[arm] = calibration_curves.pooled(arm, trainings)
    errors = sorted((error, arm) for arm, (_, error) in found.items())
    (least, first), (most, last) = errors[0], errors[-1]
    return Section(
        "Calibration",
        f"The calibration error, mean over seeds, goes from {least:.4f} ({first}) to {most:.4f} "
        f"({last}).",
        [
            calibration(f"All seeds' predictions and observed click rate: {_names(part)}", part)
            for group in groups
            for part in _parts([found[arm][0] if arm in found else None for arm in group])
            if part
        ],
    )


def _parts(lines: Sequence[DrawnT | None]) -> list[list[DrawnT]]:
    """What goes into one picture each: the first line with ARMS others."""
    first, *others = lines
    begun = [first] if first else []
    named = [line for line in others if line]
    return [begun + named[at : at + ARMS] for at in range(0, len(named) or 1, ARMS)]


def _names(part: Sequence[Line | Bins]) -> str:
    return ", ".join(line.name for line in part) or "nothing yet"
