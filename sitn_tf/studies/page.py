"""Results of a study → the page that a team shows: answer, tables, pictures, how it was made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sitn_tf import runs, schema
from sitn_tf.evaluation.comparison import SIGNIFICANT
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Alarm, Content, MadeBy, Section, Table
from sitn_tf.pages.pictures import Interval, intervals, signed
from sitn_tf.studies import arm_curves, learning_curve, readings, user_gains
from sitn_tf.studies.arm_curves import Histories
from sitn_tf.studies.arms import told_races
from sitn_tf.studies.learning_curve import LearningCurve, name_at
from sitn_tf.studies.runs import Study
from sitn_tf.studies.tables import (
    NOT_KEPT,
    Comparison,
    Result,
    UserGain,
    comparisons,
    main_table,
    other_measures,
)

HISTORY_OF = {"1": "recall", "2": "auc"}
"""By stage, the entry of its history that says how good the model is."""


def of_study(
    study: Study,
    results: Sequence[Result],
    command: str,
    more: Sequence[Section] = (),
    curve: LearningCurve | None = None,
) -> Content:
    """The page of what is finished of a study, which the command ran.

    Args:
      more: sections behind those of the results.
      curve: whose arms the study's are, where these learn from several shares of the labels.
    """
    histories: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in study.arms}
    versions: list[str] = []
    finished = {(result.arm, result.seed) for result in results}
    for run in study.runs():
        run_dir = run.stage1 if study.stage == "1" else run.stage2
        if (run.arm, run.seed) in finished and run_dir is not None:
            histories[run.arm].append(runs.read_json(run_dir / runs.HISTORY_FILE, []))
            versions.append(runs.read_info(run_dir).told_versions)
    settings = {
        arm: ", ".join([*described.settings, *([] if described.pretrain else ["without stage 1"])])
        for arm, described in study.arms.items()
    }
    facts = {
        "data set": f"{schema.read_manifest(study.data_dir).dataset_hash[:12]}, {study.data_dir}",
        "preset and settings": ", ".join([study.preset, *study.settings]),
        "seeds": ", ".join(map(str, sorted({result.seed for result in results}))),
        "training": f"{_minutes(results)} in all; a stage 1 that runs share counts in each",
        "commit": ", ".join(dict.fromkeys(result.commit for result in results)),
        "versions": "; ".join(dict.fromkeys(versions)),
    }
    read = [] if study.reading() is None else readings.read(study.workdir)
    if read:
        facts["test split"] = readings.describe(read)
    notes: list[str | Alarm] = [Alarm(readings.describe(read))] if len(read) > 1 else []
    own = {name_at(arm, curve.shares[0]): arm for arm in curve.arms} if curve else {}
    raced = [own.get(arm, arm) for arm in study.raced if not curve or arm in own]
    notes += filter(None, [told_races(raced, list(own or study.arms))])
    kept = user_gains.read(study, results) if study.stage == "2" else None
    notes += _not_kept(kept.missing) if kept else []
    if curve:
        shown = _of_curve(curve, results, study.measure, histories, kept, notes)
    else:
        over_users = user_gains.user_gains(kept, list(study.arms)) if kept else None
        shown = [_result("Result", results, list(study.arms), study.measure, notes, over_users)]
    groups = curve.groups if curve else [list(study.arms)]
    of_kept = [arm_curves.calibrations(kept, groups)] if kept and kept.by_run else []
    return content(
        study.name, results, settings, study.measure, histories, HISTORY_OF[study.stage],
        MadeBy([command], facts), shown, [*more, *of_kept], curve,
    )  # fmt: skip


def _of_curve(
    curve: LearningCurve,
    results: Sequence[Result],
    measure: str,
    histories: Histories,
    kept: user_gains.Kept | None,
    notes: Sequence[str | Alarm],
) -> list[Section]:
    """The learning curve, and the result of each share as of a study of its own."""
    labels = {
        share: int(of_seed[0]["records"])
        for share in curve.shares
        for arm in curve.arms
        for of_seed in histories[name_at(arm, share)]
        if of_seed
    }
    sections = [learning_curve.section(curve, results, measure, labels)]
    arms = list(curve.arms)
    for share in curve.shares:
        found = user_gains.user_gains(kept, [name_at(arm, share) for arm in arms]) if kept else None
        own = {name_at(arm, share): arm for arm in arms}
        over_users = None if found is None else {own[arm]: gain for arm, gain in found.items()}
        of_share = curve.at(share, results)
        title = f"With {100 * share:.4g} % of the labels"
        sections.append(_result(title, of_share, arms, measure, notes, over_users))
    return sections


def _result(
    title: str,
    results: Sequence[Result],
    arms: Sequence[str],
    measure: str,
    notes: Sequence[str | Alarm] = (),
    over_users: Mapping[str, UserGain] | None = None,
) -> Section:
    """Arms beside the first one.

    Args:
      notes: on the result.
      over_users: see `main_table`.
    """
    baseline, *others = arms
    compared = comparisons(results, arms)
    return Section(
        title,
        answer(compared, baseline, measure),
        [
            *notes,
            "Differences are paired by seed, with the 95 % interval of Student's t; p is that "
            "of the paired t-test, then corrected for the number of arms.",
            *([] if over_users is None else [_OVER_USERS]),
            main_table(results, arms, measure, over_users),
            _forest(compared, baseline, others, measure),
        ],
    )


def _not_kept(missing: Sequence[str]) -> list[str]:
    """A paragraph on runs without predictions, if there are any."""
    if not missing:
        return []
    more = f", and of {len(missing) - 1} more runs" if len(missing) > 1 else ""
    return [f'"{NOT_KEPT}" are predictions of {missing[0]}{more}.']


def content(
    name: str,
    results: Sequence[Result],
    arms: Mapping[str, str],
    measure: str,
    histories: Histories,
    history: str,
    made_by: MadeBy,
    shown: Sequence[Section],
    more: Sequence[Section] = (),
    curve: LearningCurve | None = None,
) -> Content:
    """The page of plain numbers.

    Args:
      name: of the study.
      arms: by name, the baseline first, what is told of its settings.
      measure: what the results' scores are.
      histories: see `Histories`; history: what to draw of the entries.
      shown: sections of the results; more: those behind them.
      curve: whose arms these are, if they learn from several shares of the labels.
    """
    baseline = next(iter(curve.arms if curve else arms))
    groups = curve.groups if curve else [list(arms)]
    sections = [
        *shown,
        Section(
            "Other measures",
            f"What else was measured of {measure.split()[0]} data, and what training took.",
            [
                "Seconds are of the training steps alone: stage 1, stage 2, and starts that lost a "
                "race. Lift is how far stage 1's retrieval is above chance, in odds.",
                other_measures(results, list(arms)),
            ],
        ),
        *more,
        arm_curves.training(histories, groups, history),
        Section(
            "Arms",
            f"The baseline is {baseline}; an arm has the study's settings but for its own.",
            [Table("What an arm changes", ["arm", "settings"],
                   [[arm, told or "nothing"] for arm, told in arms.items()]),],
        ),
    ]  # fmt: skip
    asked = f"What do the arms come to in {measure}, beside the baseline {baseline}?"
    return f"Study {name}", asked, sections, made_by


_OVER_USERS = (
    "Over seeds: how far other trainings would move a difference. Over users: how far other users "
    "would move that of these trainings, by a paired bootstrap of users on the mean AUC over seeds."
)


def answer(compared: Mapping[str, Comparison], baseline: str, measure: str) -> str:
    """One sentence: whether an arm is above the baseline, which, and by how much."""
    if not compared:
        return f"Nothing is to be compared yet: {baseline} and another arm need a seed in common."
    best = max(compared, key=lambda arm: compared[arm].mean)
    if all(np.isnan(of.half) for of in compared.values()):
        by = signed(compared[best].mean)
        found = f"the best arm is {best}, {by} from {baseline} in {measure}"
        if not compared[best].mean > 0:
            found = f"no arm is above {baseline} in {measure}, the nearest is {best}, {by} from it"
        return f"By one seed {found}: more seeds would show whether that is more than chance."
    told = {arm: of for arm, of in compared.items() if of.corrected < SIGNIFICANT}
    above = [arm for arm, of in told.items() if of.mean > 0]
    counts = (
        f"(of {len(compared)} arms: {len(above)} above it, {len(told) - len(above)} below, "
        f"{len(compared) - len(told)} undecided)"
    )
    if not above:
        return f"No arm is above {baseline} in {measure} {counts}."
    best = max(above, key=lambda arm: told[arm].mean)
    return (
        f"{best} is {told[best].mean:.4f} ± {told[best].half:.4f} above {baseline} in {measure} "
        f"{counts}."
    )


def _forest(
    compared: Mapping[str, Comparison], baseline: str, others: Sequence[str], measure: str
) -> Picture:
    gains = []
    for arm in others:
        mean, half = compared[arm][:2] if arm in compared else (np.nan, np.nan)
        gains.append(Interval(arm, mean, mean - half, mean + half))
    return intervals(f"Difference to {baseline}", gains, f"difference of {measure}")


def _minutes(results: Sequence[Result]) -> str:
    minutes = sum(sum(result.seconds.values()) for result in results) / 60
    return f"{minutes / 60:.1f} h" if minutes >= 100 else f"{minutes:.0f} min"
