"""Pictures of numbers: what is drawn where, told by tooltips, places and colours of the SVG."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from sitn_tf.pages import figures, pictures

GAINS = [
    pictures.Interval("better", 0.02, 0.01, 0.03, "target history"),
    pictures.Interval("worse", -0.02, -0.03, -0.01, "target history"),
    pictures.Interval("neither", 0.005, -0.005, 0.015, "source history"),
    pictures.Interval("one seed", 0.01, group="source history"),
    pictures.Interval("absent", math.nan, group="source history"),
]
LINES = [
    pictures.Line("sitn", [1, 2, 3], [0.6, 0.7, math.nan], [0.5, 0.6, 0.7], [0.7, 0.8, 0.9]),
    pictures.Line("din", np.array([1, 2, 3]), np.array([0.6, 0.65, 0.66])),
]
BINS = [
    pictures.Bins("as trained", [0.1, 0.3], [0.2, 0.4], [0.2, 0.8]),
    pictures.Bins("platt", np.array([0.1, 0.3]), np.array([0.1, 0.3]), np.array([0.5, 0.5])),
]
SOURCE = pictures.Points("source", [0, 1], [0, 1], ["Heat (1995)", 'a "b" & <c>'])
TARGET = pictures.Points("target", np.array([2.0]), np.array([2.0]), ["$1 and $2"])

ALL = {
    "intervals": lambda: pictures.intervals("t", GAINS, "difference of AUC"),
    "curves": lambda: pictures.curves("t", LINES, "epoch", "AUC"),
    "log": lambda: pictures.curves("t", LINES, "labels", "AUC", log_x=True, share=True),
    "calibration": lambda: pictures.calibration("t", BINS),
    "clusters": lambda: pictures.clusters("t", SOURCE, TARGET, [(1, 0)], [("1", 1, 0)]),
}


def parsed(picture):
    return ET.fromstring(picture.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))


def texts(picture):
    return [text.text for text in parsed(picture).iter("text")]


def tooltips(picture):
    return [title.text for title in parsed(picture).iter("title")]


def colors(picture):
    """Colour by tooltip."""
    groups = [g for g in parsed(picture).iter("g") if g.find("title") is not None]
    return {g.find("title").text: re.findall(r"#\w{6}", ET.tostring(g, "unicode"))[-1]
            for g in groups}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_picture_has_a_title_and_is_the_same_each_time(name):
    picture = ALL[name]()
    svg = parsed(picture)
    assert (picture.title, svg.get("aria-label"), svg.get("role")) == ("t", "t", "img")
    assert float(svg.get("width")) == pictures.WIDTH
    assert picture == ALL[name]()
    assert tooltips(picture)


def test_intervals_have_the_colour_of_their_side_and_say_their_numbers():
    picture = pictures.intervals("t", GAINS, "difference of AUC")
    assert colors(picture) == {
        "better: +0.0200, from +0.0100 to +0.0300": pictures.ABOVE,
        "worse: −0.0200, from −0.0300 to −0.0100": pictures.BELOW,
        "neither: +0.0050, from −0.0050 to +0.0150": pictures.ACROSS,
        "one seed: +0.0100": pictures.ACROSS,
    }
    shown = texts(picture)
    assert shown.count("target history") == shown.count("source history") == 1
    assert shown[shown.index("absent") + 1] == "not run"


def test_intervals_of_what_has_no_reference_have_one_colour():
    rows = [pictures.Interval("sitn", 0.7, 0.6, 0.8), pictures.Interval("din", 0.6)]
    picture = pictures.intervals("t", rows, "AUC", reference=None, form=".2f")
    assert colors(picture) == {
        "sitn: 0.70, from 0.60 to 0.80": pictures.ABOVE, "din: 0.60": pictures.ABOVE,
    }  # fmt: skip


def test_a_name_that_is_too_long_is_cut_but_for_its_tooltip():
    name = "x" * 60
    picture = pictures.intervals("t", [pictures.Interval(name, 1.0)], "x")
    assert name not in texts(picture)
    assert tooltips(picture) == [f"{name}: +1.0000"]
    assert len(max(texts(picture), key=len)) < 40


def test_curves_leave_out_what_was_not_measured():
    assert tooltips(pictures.curves("t", LINES, "epoch", "AUC")) == [
        "sitn, 1: 0.6", "sitn, 2: 0.7", "din, 1: 0.6", "din, 2: 0.65", "din, 3: 0.66"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["curves", "calibration"])
def test_more_lines_than_colours_are_told_apart_by_dashes(kind):
    names = [f"arm {n}" for n in range(12)]
    if kind == "curves":
        lines = [pictures.Line(name, [1, 2], [n, n + 1]) for n, name in enumerate(names)]
        picture = pictures.curves("t", lines, "epoch", "AUC")
    else:
        bins = [
            pictures.Bins(name, [0.1, 0.2], [0.1, n / 20], [1, 1]) for n, name in enumerate(names)
        ]
        picture = pictures.calibration("t", bins)
    drawn = re.findall(r'<path d="[^"]*"[^>]*style="fill: none; ([^"]*)"', picture.svg)
    dashes = [re.sub(r"stroke-width[^;]*;?|stroke-linecap[^;]*;?", "", style) for style in drawn]
    looks = [look for look in dashes if any(color in look for color in figures.SERIES)]
    assert len(set(looks)) == 12
    assert set(names) <= set(texts(picture))


def test_places_of_a_logarithmic_axis_are_labelled_unless_they_are_too_near():
    labels = [100, 300, 320, 1000, 3000]
    line = pictures.Line("sitn", labels, [0.5] * 5)
    shown = texts(pictures.curves("t", [line], "labels", "AUC", log_x=True))
    assert shown[:4] == ["100", "320", "1k", "3k"]


def test_areas_of_calibrations_points_are_shares_and_equal_rates_lie_on_the_diagonal():
    svg = parsed(pictures.calibration("t", BINS[:1]))
    points = [g for g in svg.iter("g") if g.find("title") is not None]
    paths = [ET.tostring(point, "unicode") for point in points]
    radii = [float(re.search(r"M 0 ([\d.]+)", path)[1]) for path in paths]
    assert (radii[0] / radii[1]) ** 2 == pytest.approx(0.2 / 0.8, rel=1e-3)
    assert tooltips(pictures.calibration("t", BINS))[-1] == (
        "platt: predicted 0.3000, observed 0.3000, 50.0% of all"
    )


def test_clusters_say_their_titles_whatever_is_in_them():
    picture = pictures.clusters("t", SOURCE, TARGET, [(0, 0)])
    assert tooltips(picture) == [
        "source: Heat (1995)", 'source: a "b" & <c>', "target: $1 and $2"
    ]  # fmt: skip


def test_marks_stand_beside_both_points_for_who_cannot_point_at_them():
    picture = pictures.clusters("t", SOURCE, TARGET, [(1, 0)], [("7", 1, 0)])
    assert [text for text in texts(picture) if text == "7"] == ["7", "7"]
    assert "fill: #" not in "".join(re.findall(r"<text[^>]*>7<", picture.svg))


def test_dollars_are_no_formula():
    name = r"$a$ or $\frac$"
    assert name in texts(pictures.intervals("t", [pictures.Interval(name, 1.0)], "x"))


def test_nothing_to_show():
    empty = pictures.Points("source", [], [], [])
    nothing = pictures.Line("sitn", [1], [math.nan])
    for picture in (
        pictures.intervals("t", [pictures.Interval("sitn", math.nan)], "x"),
        pictures.curves("t", [nothing], "x", "y"),
        pictures.calibration("t", []),
        pictures.clusters("t", empty, empty),
    ):
        assert picture == ("t", "")


def test_short():
    shown = [pictures.short(number) for number in (12_345_678, 1e10, 1234, 0.01234)]
    assert shown == ["12.3M", "10G", "1.23k", "0.0123"]
