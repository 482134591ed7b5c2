import dataclasses
import pathlib
import re

import numpy as np
import pytest

from sitn_tf import config, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import slices, transfer, transfer_sections
from sitn_tf.evaluation.comparison import Gain
from sitn_tf.pages.page import Alarm, Table
from tests.sitn_tf import compared_runs

LENGTHS = compared_runs.scored(0.0, 0).target_length
HURT = (LENGTHS >= 5) & (LENGTHS < 10)
"""Requests at which the judged run is worse."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    judged, other = (np.where(HURT, 0.2, 2.0), np.full(len(HURT), 1.0))
    run_dirs = [
        compared_runs.write(root / "sitn" / "stage2", compared_runs.scored(judged, 1), (), "one"),
        compared_runs.write(root / "none" / "stage2", compared_runs.scored(other, 2)),
    ]
    return transfer.compare(run_dirs, schema.TEST)


def _reversed(compared):
    run_dirs = [model.runs[0].run_dir for model in compared.contenders]
    return transfer.compare(run_dirs[::-1], schema.TEST)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/sitn/0/stage2", "a/din/0/stage2"], ["sitn", "din"]),
        (["a/sitn/0/stage2", "a/din/1/stage2"], ["sitn/0", "din/1"]),
        (["stage2", "other/stage2"], ["stage2", "other/stage2"]),
        (["x/y", "x/z", "x/y/z"], ["y", "z", "y/z"]),
        (["/a", "/b/../c"], ["a", "c"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(paths, names):
    assert transfer.short_names([pathlib.Path(path) for path in paths]) == names


def test_a_run_is_not_compared_with_itself():
    with pytest.raises(InputError, match=r"run_dir=a/\.\./b is given twice: name each run once"):
        transfer.short_names([pathlib.Path(path) for path in ("b", "c", "a/../b")])


def test_a_slice_that_is_hurt_is_found_behind_a_gain(compared):
    assert compared.overall.gains[0].low > 0
    (harm,) = (h for h in transfer.harms(compared) if "target history" in h.where)
    assert harm.where == "length of the target history 5–9"
    assert harm.comparison.requests == HURT.sum()
    assert harm.sure
    assert harm.gain.high < 0
    assert "keep it" in harm.remedy
    assert "--set model.request_features=source_length,target_length, or" in harm.remedy


def test_a_loss_overall_comes_first_with_what_to_do_instead(compared):
    first, *others = transfer.harms(_reversed(compared))
    assert first.where == transfer.ALL_REQUESTS
    assert first.remedy == "serve sitn"
    assert others
    assert {harm.remedy for harm in others} == {"serve sitn"}


@pytest.mark.parametrize(("p", "sure"), [(0.01, False), (0.003, True)])
def test_one_interval_below_0_among_many_may_be_chance(compared, p, sure):
    """Of 13 slices: 0.01 becomes 0.13, and 0.003 becomes 0.039."""

    def with_gain(part, gain):
        return dataclasses.replace(
            part, comparison=dataclasses.replace(part.comparison, gains=[gain])
        )

    nothing, hurt = Gain(0.0, -0.1, 0.1, 1.0), Gain(-0.1, -0.2, -0.01, p)
    by_slice = [
        (slicing, [with_gain(part, nothing) for part in parts])
        for slicing, parts in compared.by_slice
    ]
    assert sum(len(parts) for _, parts in by_slice) == 13
    by_slice[1][1][2] = with_gain(by_slice[1][1][2], hurt)
    untold = dataclasses.replace(compared.overall, gains=[nothing])
    (harm,) = transfer.harms(dataclasses.replace(compared, overall=untold, by_slice=by_slice))
    assert (harm.where, harm.sure) == ("length of the source history 5–9", sure)
    assert harm.remedy.startswith("start from scratch")  # no gain overall is a reason to keep it


@pytest.mark.parametrize(("p", "sure"), [(0.02, False), (0.015, True)])
def test_a_loss_of_all_requests_is_held_against_how_many_rivals_there_are(compared, p, sure):
    """Of three rivals: 0.02 becomes 0.06, and 0.015 becomes 0.045."""
    nothing, hurt = Gain(0.0, -0.1, 0.1, 1.0), Gain(-0.1, -0.2, -0.01, p)
    untold = dataclasses.replace(compared.overall, gains=[hurt, nothing, nothing])
    three = dataclasses.replace(
        compared, contenders=[compared.judged, *compared.others * 3], overall=untold, by_slice=[]
    )
    (harm,) = transfer.harms(three)
    assert (harm.where, harm.sure) == (transfer.ALL_REQUESTS, sure)


def test_no_harm_is_told_as_such(compared):
    same = dataclasses.replace(
        compared, **dict(zip(("overall", "by_slice"), _numbers(compared, 0, 0), strict=True))
    )
    assert transfer.harms(same) == []
    hurt = transfer_sections.sections(same)[1]
    told = transfer.judged_slices(same)
    assert hurt.answer == f"No slice is hurt: none of {told} intervals lies below 0."
    few = dataclasses.replace(same.overall, enough=False)
    one = [(same.by_slice[0][0], [dataclasses.replace(same.by_slice[0][1][0], comparison=few)])]
    hurt = transfer_sections.sections(dataclasses.replace(same, by_slice=one))[1]
    assert hurt.answer == "Whether a slice is hurt can't be told: none of 1 has an interval."


def _numbers(compared, *chosen):
    scored = [compared.contenders[n].predictions for n in chosen]
    by_slice = [(s, slices.compare_slices(scored, s)) for s, _ in compared.by_slice]
    return slices.compare_all(scored), by_slice


def test_slices_that_tell_nothing_are_shown(compared):
    sections = {s.title: s for s in transfer_sections.sections(compared)}
    by_target = _table(sections["By length of the target history"])
    assert [row[0] for row in by_target.rows] == ["0", "1–4", "5–9", "10+"]
    assert by_target.rows[0][1:4] == ["12", "2.0%", "12"]
    assert by_target.rows[0][-1].endswith(" (few users)")
    assert by_target.rows[2][-1].startswith("−0.")
    by_source = _table(sections["By length of the source history"])
    assert [row[1] for row in by_source.rows] == ["300", "0", "300", "0"]
    assert by_source.rows[1][-3:] == ["–", "–", "no request"]
    assert "newest 12 items" in sections["By length of the source history"].body[-1]


def test_an_alarm_is_a_sentence_with_its_remedy(compared):
    hurt = transfer_sections.sections(compared)[1]
    alarms = [item.text for item in hurt.body if isinstance(item, Alarm)]
    (text,) = alarms
    harms = transfer.harms(compared)
    assert text.startswith("sitn is worse than none: length of the target history 5–9, −0.")
    assert " Remedy: overall it gains, so keep it; " in text
    harms = transfer.harms(compared)
    table = _table(hurt)
    assert [row[0] for row in table.rows] == [harm.where for harm in harms]
    assert table.rows[0][1:3] == [str(HURT.sum()), "none"]
    assert table.rows[0][-1] == "holds"
    assert "would lie below 0 by chance" in hurt.body[-1]


def _table(section):
    return next(item for item in section.body if isinstance(item, Table))


@pytest.mark.parametrize(
    ("ours", "theirs", "raced", "remedy"),
    [
        ((), ("model.name=mean_pool",), False, "train and serve that model: --set model.name=mean"),
        ((), ("model.use_source=false",), False, "leave .*: --set model.use_source=false, or let "),
        ((), (), False, r"start from scratch: --init=none, or let .* --set stage2.race_steps=4000"),
        ((), (), True, r"start from scratch: --init=none \(the race of starts saw nothing"),
        (("model.use_source=false",), (), False, "start from scratch"),
    ],
)
def test_a_remedy_names_what_the_other_run_is_without(compared, ours, theirs, raced, remedy):
    def changed(model, settings, **of_run):
        chosen = config.override(config.tiny(), settings)
        run = dataclasses.replace(model.runs[0], config=chosen, **of_run)
        return dataclasses.replace(model, runs=[run])

    judged = changed(compared.judged, ours, race={"starts": {}} if raced else None)
    found = transfer.instead(judged, changed(compared.others[0], theirs))
    assert re.match(remedy, found)
    of_another_seed = changed(compared.others[0], (*theirs, "seed=9"))
    assert transfer.instead(judged, of_another_seed).startswith("first compare runs of the same se")


def test_predictions_of_another_split_are_not_compared(compared, tmp_path):
    run_dir = compared_runs.write(tmp_path / "run", compared.judged.predictions[0])
    whole_files.write_json(run_dir / "metrics.json", {})
    with pytest.raises(InputError, match=r"metrics\.json says None"):
        transfer.compare([compared.judged.runs[0].run_dir, run_dir], schema.TEST)
