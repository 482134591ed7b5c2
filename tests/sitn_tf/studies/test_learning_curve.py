"""A study at several shares of the labels: its arms, its table by hand, its page."""

import re

import pytest

from sitn_tf.errors import InputError
from sitn_tf.pages import markdown
from sitn_tf.studies import learning_curve
from sitn_tf.studies.arms import SCRATCH, Arm
from sitn_tf.studies.learning_curve import LearningCurve
from sitn_tf.studies.page import _of_curve
from sitn_tf.studies.tables import Result

CURVE = LearningCurve({"base": SCRATCH, "up": Arm(("encoder.heads=2",))}, [0.02, 1.0])
RESULTS = [
    Result(arm, seed, score)
    for arm, scores in {
        "base.labels_0.02": (0.60, 0.62),
        "up.labels_0.02": (0.6601, 0.6799),
        "base": (0.80, 0.82),
    }.items()
    for seed, score in enumerate(scores)
]


def test_all_labels_keep_the_arms_own_name():
    arms = CURVE.every_arm
    assert list(arms) == ["base.labels_0.02", "up.labels_0.02", "base", "up"]
    assert arms["up.labels_0.02"].settings == ("encoder.heads=2", "stage2.label_share=0.02")
    assert not arms["base.labels_0.02"].pretrain
    assert arms["up"] == CURVE.arms["up"]


def test_shares_are_read_and_refused():
    assert learning_curve.read_shares(["1", "0.1", ".02", "1e-1"]) == [0.02, 0.1, 1.0]
    for bad in ("0", "1.5", "-0.1", "nan", "half"):
        with pytest.raises(InputError, match=rf"^labels={bad} is not a number above 0 and at most"):
            learning_curve.read_shares(["0.1", bad])


def test_a_row_a_share():
    found = learning_curve.section(CURVE, RESULTS, "test AUC", {0.02: 4171})
    _, table, picture = found.body
    assert table.head == ["share of labels", "training requests", "base", "up", "up minus base"]
    # t(1) = 12.706: of 0.60 and 0.62 times 0.01; of 0.0601 and 0.0599 times 0.0001.
    assert table.rows == [
        ["0.02", "4,171", "0.6100 ± 0.1271", "0.6700 ± 0.1258", "+0.0600 ± 0.0013"],
        ["1", "", "0.8100 ± 0.1271", "not run", ""],
    ]
    assert found.answer.endswith("by share of the labels: up +0.0600 at 0.02.")
    assert "base, 4,171: 0.61<" in picture.svg
    assert learning_curve.section(CURVE, [], "AUC", {}).answer.endswith("none yet.")


def test_each_share_has_a_result_of_its_own():
    entry = {"epoch": 1, "auc": 0.6, "records": 4171}
    histories = {"base.labels_0.02": [[], [entry]], "up.labels_0.02": [], "base": [], "up": []}
    sections = _of_curve(CURVE, RESULTS, "test AUC", histories, None, ["A note."])
    titles = ["Learning curve", "With 2 % of the labels", "With 100 % of the labels"]
    assert [section.title for section in sections] == titles
    text = markdown.document("t", "q", sections)
    assert re.search(r"\| 0\.02 \| 4,171 \| 0\.6100", text)
    assert "up is 0.0600 ± 0.0013 above base in test AUC" in text
    assert "| up | 0 | not run" in text
