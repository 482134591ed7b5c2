"""What a run gains over others (`transfer.py`) → sections of a page: answers, tables, pictures."""

import math
from collections.abc import Sequence

import numpy as np

from sitn_tf import config as configs
from sitn_tf import runs
from sitn_tf.evaluation import comparison, metrics
from sitn_tf.evaluation.comparison import Comparison, Gain
from sitn_tf.evaluation.slices import Slice, Slicing
from sitn_tf.evaluation.transfer import (
    ALL_REQUESTS,
    ComparedRun,
    Harm,
    Transfer,
    harms,
    judged_slices,
)
from sitn_tf.figures import Picture
from sitn_tf.page import Alarm, MadeBy, Section, Table
from sitn_tf.pictures import Bins, Interval, Line, calibration, curves, intervals, signed


def title(transfer: Transfer) -> str:
    return f"What {transfer.judged.name} gains"


def asked(transfer: Transfer) -> str:
    """The question, in one sentence."""
    return (
        f"What does {transfer.judged.name} gain over {_listed(_names(transfer.others))} on the "
        f"{transfer.split} split of the data set {transfer.manifest.dataset_hash[:12]}, and whom "
        "does it hurt?"
    )


def sections(transfer: Transfer) -> list[Section]:
    """All of them: overall, whom it hurts, by slice, calibration, training, the runs."""
    return [
        _overall(transfer),
        _hurt(transfer),
        *(_by_slice(transfer, slicing, parts) for slicing, parts in transfer.by_slice),
        _calibration(transfer),
        _training(transfer),
        _runs(transfer),
    ]


def made_by(transfer: Transfer, command: str) -> MadeBy:
    """The command, and whatever the numbers depend on."""
    whole = transfer.overall
    versions = {run.name: run.info.told_versions for run in transfer.runs}
    said = "; ".join(f"{name}: {version}" for name, version in versions.items())
    return MadeBy(
        [command],
        {
            "data set": f"{transfer.manifest.dataset_hash}, {transfer.judged.info.data_dir}",
            "split": f"{transfer.split}: {whole.requests:,} requests of {whole.users:,} users, "
            f"{len(transfer.judged.predictions.label):,} candidates",
            "intervals": f"95 %, {comparison.DRAWS:,} draws of users, seed {comparison.SEED}",
            "versions": versions[transfer.judged.name] if len({*versions.values()}) == 1 else said,
        },
    )


def _overall(transfer: Transfer) -> Section:
    whole, judged = transfer.overall, transfer.judged
    corrected = comparison.holm(np.array([gain.p for gain in whole.gains]))
    rows = [[judged.name, _number(whole.auc[0]), "", "", *_row(judged)]]
    for k, other in enumerate(transfer.others):
        gain = _gain(whole, whole.gains[k])
        p = "" if math.isnan(corrected[k]) else f"{corrected[k]:.4f}"
        rows.append([other.name, _number(whole.auc[k + 1]), gain, p, *_row(other)])
    over = (
        _verdict(whole.gains[k], f"over {other.name}") for k, other in enumerate(transfer.others)
    )
    return Section(
        "Overall",
        f"{judged.name} has an AUC of {_number(whole.auc[0])}: {_listed(list(over))}.",
        [
            Table(
                f"The {transfer.split} split, AUC pooled over its candidates",
                ["run", "AUC", f"gain of {judged.name}", "p", *metrics.TITLES.values()],
                rows,
            ),
            _picture(transfer, f"Gain of {judged.name} in AUC", [("", whole)]),
            "Intervals (95 %) and p (by Holm for as many comparisons) are of a paired bootstrap of "
            "users. They say nothing of another training: seeds move AUC too, and python -m "
            "sitn_tf.experiments trains several.",
        ],
    )


def _row(run: ComparedRun) -> list[str]:
    return [_number(run.metrics.get(name, math.nan)) for name in metrics.TITLES]


def _hurt(transfer: Transfer) -> Section:
    found = harms(transfer)
    judged = judged_slices(transfer)
    tests = judged * len(transfer.others)
    whole = len(list(transfer.slices()))
    untold = (
        f"{whole - judged} of {whole} slices have no request, one class or fewer than "
        f"{comparison.FEW_USERS} users with or without a click, and no interval."
        if whole > judged
        else ""
    )
    if not found:
        answer = f"No slice is hurt: none of {tests} intervals lies below 0."
        return Section("Where it hurts", answer, [untold] if untold else [])
    slices = [harm for harm in found if harm.where != ALL_REQUESTS]
    by_chance = (1 - comparison.COVERAGE) / 2 * tests
    by_run = [[harm for harm in found if harm.other is other] for other in transfer.others]
    return Section(
        "Where it hurts",
        f"{len(slices)} of {tests} intervals of slices lie below 0"
        + (", and so does one of all requests." if len(found) > len(slices) else "."),
        [
            *(Alarm(_alarm(transfer.judged, of_run)) for of_run in by_run if of_run),
            Table(
                f"Where {transfer.judged.name} is worse",
                ["where", "requests", "worse than", "gain", "after Holm's correction"],
                [
                    [
                        harm.where,
                        f"{harm.comparison.requests:,}",
                        harm.other.name,
                        harm.gain.told,
                        "holds" if harm.sure else "may be chance",
                    ]
                    for harm in found
                ],
            ),
            f"Of {tests} intervals {by_chance:.1f} would lie below 0 by chance if there were no "
            "difference anywhere. Holm's correction is for the slices of a comparison. " + untold,
        ],
    )


def _alarm(judged: ComparedRun, found: Sequence[Harm]) -> str:
    """One sentence of where the judged run is worse than one other, and the remedy."""
    places = [f"{harm.where}, {harm.gain.told}" for harm in found[:_NAMED]]
    more = [f"{len(found) - _NAMED} more slices"] if len(found) > _NAMED else []
    worse = f"{judged.name} is worse than {found[0].other.name}: {'; '.join([*places, *more])}."
    return f"{worse} Remedy: {found[0].remedy}."


_NAMED = 3
"""Places that an alarm names; the table below it has all."""


def _by_slice(transfer: Transfer, slicing: Slicing, parts: Sequence[Slice]) -> Section:
    names = _names(transfer.runs)
    rows = [
        [
            part.name,
            f"{part.comparison.requests:,}",
            f"{part.share:.1%}",
            f"{part.comparison.users:,}",
            *map(_number, part.comparison.auc),
            *(_gain(part.comparison, gain) for gain in part.comparison.gains),
        ]
        for part in parts
    ]
    table = Table(
        f"Requests by {slicing.title}, each with all its candidates",
        [
            slicing.title,
            "requests",
            "share",
            "users",
            *(f"AUC of {name}" for name in names),
            *(f"gain over {name}" for name in names[1:]),
        ],
        rows,
    )
    pictured = [(part.name, part.comparison) for part in parts]
    picture = _picture(transfer, f"Gain of {names[0]} by {slicing.title}", pictured)
    heading = f"By {slicing.title}"
    note = f"{slicing.note} Gains are comparable from slice to slice, AUC is not."
    return Section(heading, _range_of_gains(transfer, parts), [table, picture, note])


def _range_of_gains(transfer: Transfer, parts: Sequence[Slice]) -> str:
    """The least and the most gain over each other run, of slices with users enough."""
    told = [part for part in parts if part.comparison.enough]
    if not told:
        return f"No slice has {comparison.FEW_USERS} users with a click and as many without."
    said = []
    for k, other in enumerate(transfer.others):
        gains = [(part.comparison.gains[k].value, part.name) for part in told]
        ends = [f"{signed(gain)} ({name})" for gain, name in sorted({min(gains), max(gains)})]
        said.append(f"over {other.name} {' to '.join(ends)}")
    return f"The gain is {'; '.join(said)}."


def _picture(
    transfer: Transfer, caption: str, compared: Sequence[tuple[str, Comparison]]
) -> Picture:
    """Gains over each other run, where they have an interval."""
    one = len(compared) == 1
    rows = [
        Interval(
            f"over {other.name}" if one else name,
            of.gains[k].value,
            of.gains[k].low,
            of.gains[k].high,
            group="" if one else f"over {other.name}",
        )
        for k, other in enumerate(transfer.others)
        for name, of in compared
        if of.enough
    ]
    return intervals(caption, rows, "gain in AUC, 95 % interval")


def _calibration(transfer: Transfer) -> Section:
    lines, errors = [], []
    for run in transfer.runs:
        scored = run.predictions
        curve = metrics.calibration_curve(scored.label, scored.probability)
        lines.append(Bins(run.name, curve.predicted, curve.observed, curve.weight))
        errors.append(f"{curve.error:.4f} of {run.name}")
    return Section(
        "Calibration",
        f"The mean difference of predicted and observed click rates is {_listed(errors)}.",
        [calibration("Predicted probability and observed click rate", lines)],
    )


def _training(transfer: Transfer) -> Section:
    best, rows = [], []
    lines: dict[str, list[Line]] = {"auc": [], "click": []}
    for run in transfer.runs:
        epochs = [entry["epoch"] for entry in run.history]
        for name, drawn in lines.items():
            values = [entry.get(name, entry["loss"]) for entry in run.history]
            drawn.append(Line(run.name, epochs, values))
        top = max(run.history, key=lambda entry: entry["auc"])
        best.append(f"{top['epoch']} of {len(epochs)} for {run.name}")
        seconds = f"{sum(entry['seconds'] for entry in run.history):.0f}"
        race = f"{run.race['seconds']:.0f}" if run.race else ""
        told = f"{top['epoch']}", f"{len(epochs)}", _number(top["auc"]), seconds, race
        rows.append([run.name, *told])
    return Section(
        "Training",
        f"The best epoch was {_listed(best)}.",
        [
            Table(
                "Stage 2, and the race of its starts where there was one",
                ["run", "best epoch", "epochs", "validation AUC", "seconds", "race's seconds"],
                rows,
            ),
            curves("Validation AUC by epoch", lines["auc"], "epoch", "AUC"),
            curves("Click loss in training by epoch", lines["click"], "epoch", "loss"),
        ],
    )


def _runs(transfer: Transfer) -> Section:
    judged = transfer.judged
    rows = []
    for run in transfer.runs:
        differing = [] if run is judged else configs.differences(judged.config, run.config)
        rows.append(
            [
                run.name,
                run.config.model.name,
                _start(run),
                "yes" if run.config.model.use_source else "no",
                str(run.config.seed),
                "; ".join(differing),
                str(run.run_dir),
            ]
        )
    seeds = [str(run.config.seed) for run in transfer.runs]
    seed = f"of seed {seeds[0]}" if len({*seeds}) == 1 else f"of seeds {_listed(seeds)}"
    return Section(
        "The runs",
        f"{len(rows)} runs {seed}, trained on the same data set.",
        [
            Table(
                f"Where another run differs from {judged.name}: its values second.",
                ["run", "model", "starts from", "source", "seed", "differs in", "directory"],
                rows,
            )
        ],
    )


def _start(run: ComparedRun) -> str:
    start = "scratch" if run.info.init == runs.NO_INIT else f"stage 1, {run.info.init}"
    return f"{start} (won a race of {len(run.race['starts'])})" if run.race else start


def _names(compared: Sequence[ComparedRun]) -> list[str]:
    return [run.name for run in compared]


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _gain(of: Comparison, gain: Gain) -> str:
    """A table's cell: what keeps an interval from being told, where there is none."""
    if not of.requests:
        return "no request"
    if math.isnan(gain.value):
        return "one class only"
    return gain.told if of.enough else f"{signed(gain.value)} (few users)"


def _verdict(gain: Gain, over: str) -> str:
    if math.isnan(gain.low):
        return f"{signed(gain.value)} {over} (no interval: few users)"
    chance = "" if gain.low > 0 or gain.hurts else ", which may be chance"
    return f"{gain.told} {over}{chance}"
