"""Figures as text: for a page and as files, whatever matplotlib's settings are."""

import xml.etree.ElementTree as ET

import matplotlib
import pytest

from sitn_tf.pages import figures


def drawn(alone=False):
    with figures.figure(200, 100) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=figures.INK)
        axes.set(xlabel="a < b")
        return figures.svg(figure, "c & d", alone=alone)


def test_a_figure_does_not_follow_the_settings_of_the_user():
    expected = drawn()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        assert drawn() == expected
    assert not matplotlib.rcParams["axes.grid"]


def test_text_is_text_and_ink_is_the_colour_of_the_page():
    svg = ET.fromstring(drawn())
    assert "a < b" in [text.text for text in svg.iter("text")]
    assert (svg.get("aria-label"), svg.get("viewBox")) == ("c & d", "0 0 200 100")
    assert figures.INK not in drawn()
    assert "stroke: currentColor" in drawn()


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_brings_its_namespace_and_its_colours(alone):
    text = drawn(alone)
    assert ("http://www.w3.org/2000/svg" in text) == alone
    assert ("prefers-color-scheme: dark" in text) == alone
    assert text.startswith("<svg")
    ET.fromstring(text)
