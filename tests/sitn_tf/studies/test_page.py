"""The page of a study: its sentences and tables by hand, and what it says of unfinished ones."""

import re

import numpy as np
import pytest

from sitn_tf.page import MadeBy
from sitn_tf.studies import page
from sitn_tf.studies.tables import Result, differences


def results(**scores):
    """Runs of an arm by seed."""
    return [
        Result(arm, seed, score, metrics={"auc": score, "gauc": score - 0.1, "log_loss": score})
        for arm, of_arm in scores.items()
        for seed, score in enumerate(of_arm)
    ]


FOUND = results(base=[0.70, 0.72], up=[0.7101, 0.7299], down=[0.6900, 0.7099], noisy=[0.71, 0.70])
ARMS = ["base", "up", "down", "noisy", "absent"]


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
    }  # fmt: skip
    return page.render(**(given | changed))


def test_differences_are_paired_by_seed():
    found = [Result("base", 0, 0.5), Result("base", 2, 0.7), Result("up", 2, 0.8)]
    np.testing.assert_allclose(differences(found, "up", "base"), [0.1])
    assert differences(found, "absent", "base").shape == (0,)


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
    assert page.answer(FOUND, arms, "AUC").startswith(expected)


def test_of_one_seed_nothing_is_claimed():
    said = page.answer(results(base=[0.7], up=[0.8]), ["base", "up"], "AUC")
    assert said == (
        "By one seed the best arm is up, +0.1000 from base in AUC: more seeds would show whether "
        "that is more than chance."
    )


def test_the_page_has_each_arm_and_says_which_is_not_run():
    text = rendered()
    for arm in ARMS:
        assert re.search(rf'<th scope="row"[^>]*>{arm}</th>', text)
    assert "not run" in text
    # GAUC is higher where it is better, log loss lower.
    assert "Best by their means: up in GAUC; down in log loss." in text
    assert ">−0.0101 ± 0.0006<" in text
    # Epoch 1 alone is of both seeds: (0.6 + 0.7) / 2.
    assert "Highest means on validation data: base 0.6500 at epoch 1." in text
    assert "encoder.heads=2" in text
    assert text == rendered()


def test_a_study_without_a_result_has_a_page():
    text = rendered(results=[], histories={})
    assert "Best by their means: none yet." in text
    assert "nothing to show" in text
