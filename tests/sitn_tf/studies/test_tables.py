import pytest

from sitn_tf.studies.tables import RACE, Result, comparisons, main_table, other_measures

KNOWN = {
    "metrics": {"gauc": 0.6, "log_loss": 0.3, "normalised_entropy": 0.8, "calibration_error": 0.02},
    "epoch": {"stage1": 7, "stage2": 2},
    "seconds": {"stage1": 30.4, "stage2": 4.6, RACE: 2.0},
    "parameters": 1234,
}


def test_the_main_table_pairs_seeds_and_says_what_is_not_run():
    results = [
        Result("base", 0, 0.70),
        Result("base", 1, 0.72),
        Result("other", 1, 0.73),
        Result("other", 0, 0.71),
        Result("third", 0, 0.71),
    ]
    table = main_table(results, ["base", "other", "third", "fourth"], "AUC")
    assert table.head == [
        "arm", "seeds", "AUC, mean ± sd", "minus base, 95 % interval", "p, paired t-test", "p, Holm"
    ]  # fmt: skip
    # Of other: differences of 0.01 twice, but for rounding: no spread.
    assert table.rows == [
        ["base", "2", "0.7100 ± 0.0141", "", "", ""],
        ["other", "2", "0.7200 ± 0.0141", "+0.0100 ± 0.0000", "no spread", "no spread"],
        ["third", "1", "0.7100", "+0.0100", "", ""],
        ["fourth", "0", "not run", "", "", ""],
    ]
    assert table.kinds == ["name", "number", "number", "number", "name", "name"]
    alone = main_table([Result("base", 0, 0.3)], ["base"], "recall")
    assert (alone.head[2:], alone.rows) == (["recall, mean ± sd"], [["base", "1", "0.3000"]])


def test_arms_are_corrected_for_each_other():
    """Differences 1, 2, 3 have p = 0.0742; of two arms that have it, each has twice that."""
    differences = {"base": (0, 0, 0), "a": (1, 2, 3), "b": (-3, -1, -2)}
    results = [Result(arm, seed, d) for arm, of in differences.items() for seed, d in enumerate(of)]
    table = main_table(results, list(differences), "AUC")
    assert [row[-2:] for row in table.rows] == [["", ""], *[["0.0742", "0.1484"]] * 2]


def test_other_measures_are_means_with_their_spread():
    results = [
        Result("base", 0, 0.70, metrics={"gauc": 0.5}),
        Result("base", 1, 0.72, metrics={"gauc": 0.7}),
        Result("other", 0, 0.71, 0.5, 0.1, **KNOWN),
        Result("other", 1, 0.73, 0.5, 0.1, **KNOWN),
    ]
    table = other_measures(results, ["base", "other", "third"])
    assert table.head == [
        "arm", "GAUC", "log loss", "normalised entropy", "calibration error", "parameters",
        "seconds", "each", "best epochs", "lift",
    ]  # fmt: skip
    # Odds of 1 are nine times those of 1 to 9.
    assert table.rows == [
        ["base", "0.6000 ± 0.1414", *[""] * 8],
        ["other", "0.6000 ± 0.0000", "0.3000 ± 0.0000", "0.8000 ± 0.0000", "0.0200 ± 0.0000",
         "1,234", "37 ± 0", "30 + 5 + 2", "7.0 + 2.0", "9.0 ± 0.0"],
    ]  # fmt: skip
    assert table.kinds == ["name", *["number"] * 9]


def test_a_retrieval_that_finds_every_user_has_a_lift_without_a_spread():
    found = [Result("base", 0, 0.7, 1.0, 0.1), Result("base", 1, 0.7, 0.5, 0.1)]
    assert other_measures(found, ["base"]).rows == [["base", "inf"]]


def test_seeds_are_paired_whatever_their_order_and_alone_in_none():
    found = [Result("base", 2, 0.7), Result("base", 0, 0.5), Result("up", 3, 0.9)]
    found += [Result("up", 0, 0.6), Result("up", 2, 0.9)]
    compared = comparisons(found, ["base", "up", "absent"])
    assert list(compared) == ["up"]
    # Differences 0.1 and 0.2: sd 0.0707, over sqrt 2 that is 0.05; t(1) = 12.706.
    assert compared["up"][:2] == pytest.approx((0.15, 12.706 * 0.05), rel=1e-4)
