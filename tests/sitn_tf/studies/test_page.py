"""The page of a study: its sentences and tables by hand, and what it says of unfinished ones."""

import dataclasses
import re

import numpy as np
import pytest

from sitn_tf.evaluation.comparison import Gain
from sitn_tf.pages.page import Alarm, MadeBy, page
from sitn_tf.studies import arm_curves, paper
from sitn_tf.studies.learning_curve import LearningCurve
from sitn_tf.studies.page import _not_kept, _result, answer, content, of_study
from sitn_tf.studies.runs import Study
from sitn_tf.studies.tables import Result, UserGain, comparisons
from sitn_tf.studies.user_gains import Kept
from tests.sitn_tf import compared_runs


def results(**scores):
    """Runs of an arm by seed."""
    return [
        Result(arm, seed, score, metrics={"auc": score, "gauc": score - 0.1, "log_loss": score})
        for arm, of_arm in scores.items()
        for seed, score in enumerate(of_arm)
    ]


FOUND = results(base=[0.70, 0.72], up=[0.7101, 0.7299], down=[0.6900, 0.7099], noisy=[0.71, 0.70])
ARMS = ["base", "up", "down", "noisy", "absent"]


def test_arms_whose_starts_race_are_told_beside_the_result(small, tmp_path):
    arms = {name: paper.TABLE2[name] for name in ("sitn", "din", "semi")}
    told = "Each run of sitn, semi keeps the best of up to three starts by validation AUC; a run of"
    study = Study(str(small), tmp_path, arms)
    assert of_study(study, [], "")[2][0].body[0].startswith(told)
    curve = LearningCurve(arms, [0.1, 1.0])
    of_curve = of_study(Study(str(small), tmp_path, curve.every_arm), [], "", curve=curve)[2]
    assert [section.body[0][: len(told)] for section in of_curve[1:3]] == [told] * 2
    without_stage1 = dataclasses.replace(study, stage="1", arms={"sitn": arms["sitn"]})
    assert not without_stage1.raced


def rendered(**changed):
    given = {
        "name": "transfer",
        "results": FOUND,
        "arms": dict.fromkeys(ARMS, "encoder.heads=2") | {"base": ""},
        "measure": "test AUC",
        "histories": {"base": [[{"epoch": 1, "auc": 0.6}, {"epoch": 2, "auc": 0.8}],
                               [{"epoch": 1, "auc": 0.7}]]},
        "history": "auc",
        "made_by": MadeBy(["python -m sitn_tf.experiments"]),
    } | changed  # fmt: skip
    of_result = [given.pop(name, None) for name in ("notes", "over_users")]
    shown = _result(
        "Result", given["results"], list(given["arms"]), given["measure"], of_result[0] or (),
        of_result[1],
    )  # fmt: skip
    return page(*content(**given, shown=[shown]))


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        # Differences of 0.0101 and 0.0099: t(1) = 12.706 times 0.0001, the mean's standard error.
        (ARMS, "up is 0.0100 ± 0.0013 above base in AUC (of 3 arms: 1 above it, 1 below, 1 undec"),
        (["base", "down", "noisy"], "No arm is above base in AUC (of 2 arms: 0 above it, 1 below"),
        (["base", "absent"], "Nothing is to be compared yet: base and another arm need a seed"),
        (["base"], "Nothing is to be compared yet"),
    ],
)
def test_the_answer(arms, expected):
    assert answer(comparisons(FOUND, arms), "base", "AUC").startswith(expected)


def test_an_arm_that_many_arms_take_their_chance_with_is_undecided():
    """P = 0.0064 of one arm; twenty of them would each have 0.127."""
    scores = {f"arm{n}": [0.7101, 0.7299] for n in range(20)}
    compared = comparisons(results(base=[0.70, 0.72], **scores), ["base", *scores])
    assert compared["arm0"].p < 0.05
    assert answer(compared, "base", "AUC").startswith("No arm is above base in AUC (of 20 arms: 0")


def test_of_one_seed_nothing_is_claimed():
    compared = comparisons(results(base=[0.7], up=[0.8]), ["base", "up"])
    assert answer(compared, "base", "AUC") == (
        "By one seed the best arm is up, +0.1000 from base in AUC: more seeds would show whether "
        "that is more than chance."
    )
    compared = comparisons(results(base=[0.7], worse=[0.6], near=[0.69]), ["base", "worse", "near"])
    assert answer(compared, "base", "AUC") == (
        "By one seed no arm is above base in AUC, the nearest is near, −0.0100 from it: more seeds "
        "would show whether that is more than chance."
    )


def test_the_page_has_each_arm_and_says_which_is_not_run():
    text = rendered()
    for arm in ARMS:
        assert re.search(rf'<th scope="row"[^>]*>{arm}</th>', text)
    assert "not run" in text
    assert ">GAUC<" in text
    assert ">−0.0101 ± 0.0006<" in text
    # Epoch 1 alone is of both seeds: (0.6 + 0.7) / 2.
    assert "Highest means on validation data: base 0.6500 at epoch 1." in text
    assert "encoder.heads=2" in text
    assert text == rendered()


def test_calibration_is_of_all_seeds_that_keep_predictions():
    """Always half where one in four is clicked is 0.25 off."""
    scored = compared_runs.scored(0.0, 0)
    half = dataclasses.replace(scored, logit=np.zeros_like(scored.logit))
    kept = Kept({("base", 0): half, ("base", 1): half, ("up", 1): compared_runs.scored(1.5, 1)})
    found = arm_curves.calibrations(kept, [["base", "absent", "up"], ["other"]])
    assert re.search(r" goes from 0\.2500 \(base\) to 0\.3\d{3} \(up\)\.$", found.answer)
    [picture] = found.body
    assert picture.title.endswith("click rate: base, up")


def test_many_arms_are_in_several_pictures_with_the_baseline_in_each():
    entry = {"epoch": 1, "auc": 0.6, "loss": 0.7, "click": 0.5}
    arms = ["base", *(f"arm{n}" for n in range(7))]
    found = arm_curves.training({arm: [[entry]] for arm in arms}, [arms], "auc")
    assert [picture.title for picture in found.body[1:]] == [
        f"{of}: base, {names}"
        for of in ("Validation AUC", "Click loss in training")
        for names in ("arm0, arm1, arm2, arm3, arm4", "arm5, arm6")
    ]
    assert "arm6, 1: 0.5<" in found.body[4].svg


def test_a_study_without_a_result_has_a_page():
    text = rendered(results=[], histories={})
    assert "Nothing is to be compared yet" in text
    assert "nothing to show" in text


def test_runs_without_predictions_are_told():
    gain = UserGain(Gain(0.01, 0.002, 0.02, 0.001), 0.003)
    text = rendered(over_users={"up": gain}, notes=_not_kept(["down, seed 0: x", "noisy, seed 0"]))
    assert ">+0.0100 (+0.0020 to +0.0200)<" in text
    assert "&#34;not kept&#34; are predictions of down, seed 0: x, and of 1 more runs." in text
    assert "paired bootstrap of users" in text
    assert "bootstrap" not in rendered()


def test_a_second_look_at_the_test_split_is_an_alarm():
    text = rendered(notes=[Alarm("The test split was read 2 times in this study.")])
    assert re.search(r'class="alarm"[^>]*>The test split was read 2 times', text)
