"""What a run gains over others (`transfer.py`) → sections of a page: answers, tables, pictures."""

import math
from collections.abc import Sequence

import numpy as np

from sitn_tf import config as configs
from sitn_tf import runs
from sitn_tf.evaluation import calibration_curves, comparison, metrics, training_curves
from sitn_tf.evaluation.comparison import Comparison, Gain
from sitn_tf.evaluation.slices import Slice, Slicing
from sitn_tf.evaluation.transfer import (
    ALL_REQUESTS,
    ComparedRun,
    Contender,
    Harm,
    Transfer,
    harms,
    judged_slices,
)
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Alarm, MadeBy, Section, Table
from sitn_tf.pages.pictures import Interval, Line, calibration, curves, intervals, signed


def title(transfer: Transfer) -> str:
    return f"What {transfer.judged.name} gains"


def asked(transfer: Transfer) -> str:
    """The question, in one sentence."""
    return (
        f"What does {transfer.judged.name} gain over {_listed(_names(transfer.others))} on the "
        f"{transfer.split} split of the data set {transfer.manifest.dataset_hash[:12]}, and whom "
        "does it hurt?"
    )


def sections(transfer: Transfer, more: Sequence[Section] = ()) -> list[Section]:
    """All of them: overall, whom it hurts, by slice, calibration, training, the runs.

    Args:
      more: sections behind the first one.
    """
    return [
        _overall(transfer),
        *more,
        _hurt(transfer),
        *(_by_slice(transfer, slicing, parts) for slicing, parts in transfer.by_slice),
        _calibration(transfer),
        _training(transfer),
        _runs(transfer),
    ]


def made_by(transfer: Transfer, command: str) -> MadeBy:
    """The command, and whatever the numbers depend on."""
    whole = transfer.overall
    versions = {
        model.name: "; ".join(dict.fromkeys(run.info.told_versions for run in model.runs))
        for model in transfer.contenders
    }
    said = "; ".join(f"{name}: {version}" for name, version in versions.items())
    return MadeBy(
        [command],
        {
            "data set": f"{transfer.manifest.dataset_hash}, {transfer.judged.info.data_dir}",
            "split": f"{transfer.split}: {whole.requests:,} requests of {whole.users:,} users, "
            f"{len(transfer.judged.predictions[0].label):,} candidates",
            "intervals": f"95 %, {comparison.DRAWS:,} draws of users, seed {comparison.SEED}",
            "commit": ", ".join(
                dict.fromkeys(
                    run.info.commit for model in transfer.contenders for run in model.runs
                )
            ),
            "versions": versions[transfer.judged.name] if len({*versions.values()}) == 1 else said,
        },
    )


def _overall(transfer: Transfer) -> Section:
    whole, judged = transfer.overall, transfer.judged
    corrected = comparison.holm(np.array([gain.p for gain in whole.gains]))
    rows = [[judged.name, _auc(judged, whole.auc[0]), "", "", *_row(judged)]]
    for k, other in enumerate(transfer.others):
        gain = _gain(whole, whole.gains[k])
        p = "" if math.isnan(corrected[k]) else f"{corrected[k]:.4f}"
        rows.append([other.name, _auc(other, whole.auc[k + 1]), gain, p, *_row(other)])
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
            "users"
            + (
                ", on the mean AUC over seeds. How far other seeds would move it, the study's own "
                "page says."
                if _several(transfer)
                else ". They say nothing of another training: seeds move AUC too, and python -m "
                "sitn_tf.experiments trains several."
            ),
        ],
    )


def _auc(model: Contender, auc: float) -> str:
    """With the standard deviation over seeds, where there are several."""
    seeds = [run.metrics.get("auc", math.nan) for run in model.runs]
    return _number(auc) + (f" ± {np.std(seeds, ddof=1):.4f}" if len(seeds) > 1 else "")


def _row(model: Contender) -> list[str]:
    """Means over seeds."""
    return [
        _number(np.mean([run.metrics.get(name, math.nan) for run in model.runs]))
        for name in metrics.TITLES
    ]


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
        answer = (
            f"No slice is hurt: none of {tests} intervals lies below 0."
            if tests
            else f"Whether a slice is hurt can't be told: none of {whole} has an interval."
        )
        return Section("Where it hurts", answer, [untold] if untold else [])
    slices = [harm for harm in found if harm.where != ALL_REQUESTS]
    of_all = len(found) - len(slices)
    by_chance = (1 - comparison.COVERAGE) / 2 * tests
    by_run = [[harm for harm in found if harm.other is other] for other in transfer.others]
    return Section(
        "Where it hurts",
        f"{len(slices)} of {tests} intervals of slices lie below 0"
        + (
            f", and so {'does' if of_all == 1 else 'do'} {of_all} of all requests."
            if of_all
            else "."
        ),
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
            "difference anywhere. Holm's correction is for the slices of a comparison; of all "
            "requests it is for as many comparisons as there are. " + untold,
        ],
    )


def _alarm(judged: Contender, found: Sequence[Harm]) -> str:
    """One sentence of where the judged run is worse than one other, and the remedy."""
    places = [f"{harm.where}, {harm.gain.told}" for harm in found[:_NAMED]]
    more = [f"{len(found) - _NAMED} more slices"] if len(found) > _NAMED else []
    worse = f"{judged.name} is worse than {found[0].other.name}: {'; '.join([*places, *more])}."
    return f"{worse} Remedy: {found[0].remedy}."


_NAMED = 3
"""Places that an alarm names; the table below it has all."""


def _by_slice(transfer: Transfer, slicing: Slicing, parts: Sequence[Slice]) -> Section:
    names = _names(transfer.contenders)
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
    found = [calibration_curves.pooled(model.name, model.predictions)
             for model in transfer.contenders]  # fmt: skip
    errors = [f"{error:.4f} of {line.name}" for line, error in found]
    return Section(
        "Calibration",
        f"The calibration error is {_listed(errors)}.",
        [calibration("Predicted probability and observed click rate", [line for line, _ in found])],
    )


def _training(transfer: Transfer) -> Section:
    best, rows = [], []
    lines: dict[str, list[Line]] = {"auc": [], "click": []}
    drawn = {"auc": lambda entry: float(entry["auc"]), "click": training_curves.click_loss}
    for model in transfer.contenders:
        histories = [run.history for run in model.runs]
        for name, value in drawn.items():
            line = training_curves.mean_line(model.name, histories, value)
            lines[name] += [line] if line else []
        tops = [max(history, key=lambda entry: entry["auc"]) for history in histories]
        epoch = _mean(".1f", [top["epoch"] for top in tops])
        epochs = _mean(".1f", [len(history) for history in histories])
        best.append(f"{epoch} of {epochs} for {model.name}")
        seconds = [sum(entry["seconds"] for entry in history) for history in histories]
        races = [run.race["seconds"] for run in model.runs if run.race]
        told = _number(np.mean([top["auc"] for top in tops])), f"{np.mean(seconds):.0f}"
        rows.append([model.name, epoch, epochs, *told, f"{np.mean(races):.0f}" if races else ""])
    return Section(
        "Training",
        f"The best epoch was {_listed(best)}.",
        [
            Table(
                "Stage 2, and the race of its starts where there was one"
                + (": means over seeds" if _several(transfer) else ""),
                ["run", "best epoch", "epochs", "validation AUC", "seconds", "race's seconds"],
                rows,
            ),
            curves("Validation AUC by epoch", lines["auc"], "epoch", "AUC"),
            curves("Click loss in training by epoch", lines["click"], "epoch", "loss"),
        ],
    )


def _several(transfer: Transfer) -> bool:
    """Whether a model has more than one seed."""
    return any(len(model.runs) > 1 for model in transfer.contenders)


def _runs(transfer: Transfer) -> Section:
    judged = transfer.judged
    rows = []
    for model in transfer.contenders:
        differing = [] if model is judged else configs.differences(judged.config, model.config)
        rows.append(
            [
                model.name,
                model.config.model.name,
                "; ".join(dict.fromkeys(_start(run) for run in model.runs)),
                "yes" if model.config.model.use_source else "no",
                ", ".join(map(str, model.seeds)),
                "; ".join(differing),
                "; ".join(str(run.run_dir) for run in model.runs),
            ]
        )
    seeds = [str(seed) for model in transfer.contenders for seed in model.seeds]
    of_each = [str(seed) for seed in judged.seeds]
    if all(model.seeds == judged.seeds for model in transfer.contenders):
        seed = f"of seed {of_each[0]}" if len(of_each) == 1 else f"of the seeds {_listed(of_each)}"
    else:
        seed = f"of seeds {_listed(seeds)}"
    return Section(
        "The runs",
        f"{len(seeds)} runs {seed}, trained on the same data set.",
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


def _names(compared: Sequence[Contender]) -> list[str]:
    return [model.name for model in compared]


def _mean(form: str, values: Sequence[float]) -> str:
    """Whole where all values are the same whole number."""
    alike = len({*values}) == 1 and float(values[0]).is_integer()
    return f"{values[0]:.0f}" if alike else f"{np.mean(values):{form}}"


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _number(value: float | np.floating) -> str:
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
