"""The shell of all pages: its structure and escaping, and what a browser makes of it."""

import html
import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest

from sitn_tf.pages import page, pictures
from sitn_tf.pages.page import Alarm, Code, MadeBy, Section, Table

BAD = '<script>alert("1 & 2")</script>'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
]  # fmt: skip


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def whole_page():
    """One of everything, two pictures of the same bytes and a table wider than a phone."""
    curve = pictures.curves("AUC", [pictures.Line("sitn", [1, 2, 3], [0.6, 0.7, 0.71])], "x", "y")
    gains = [
        pictures.Interval(f"{n} clicks and a name that is longer than a phone is wide", n - 2.0,
                          n - 3.0, n - 1.0) for n in range(5)
    ]  # fmt: skip
    wide = Table(
        "Means of 5 seeds",
        ["model", *(f"measure {n}" for n in range(12)), "said"],
        [["sitn", *["0.7123 ± 0.0012"] * 12, "so " * 40], ["din", *["not run"] * 13]],
    )
    sections = [
        Section("AUC", "The first is better.", ["A text.", wide, curve, curve]),
        Section("AUC", "Twice.", [Alarm("It hurts."), pictures.intervals("Gains", gains, "AUC")]),
        Section("¿?", body=[Code(["python -m " + "very" * 100]), "w" * 300]),
    ]
    made_by = MadeBy(["python -m sitn_tf.report --run_dir=" + "a/" * 80], {"seeds": "0, 1, 2"})
    return page.page("Title", "What was asked.", sections, made_by)


def test_the_same_sections_give_the_same_bytes():
    assert whole_page() == whole_page()


def test_all_texts_are_escaped():
    table = Table(BAD, [BAD, BAD], [[BAD, BAD]])
    body = [BAD, table, Code([BAD]), Alarm(BAD), pictures.Picture(BAD, "<svg></svg>")]
    text = page.page(BAD, BAD, [Section(BAD, BAD, body)] * 2, MadeBy([BAD], {BAD: BAD}))
    assert "<script" not in text
    words = html.unescape(re.sub(r"</?span>", "", text))
    # Title twice, question; of each section: title, answer, both again above, a paragraph, the
    # table's label, caption, 2 + 2 cells, code, alarm, caption; a command, a fact's name, the fact.
    assert words.count(BAD) == 3 + 2 * (4 + 10) + 3


def test_ids_are_there_once_and_links_lead_to_them():
    text = whole_page()
    outline = Outline(text)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert [i for i in ids if "." not in i] == ["auc", "auc-2", "section", "made-by"]
    links = [link for link in outline.values("href") if link != "data:,"]
    clips = re.findall(r"url\((#[^)]*)\)", text)
    assert len(clips) > 4
    assert {link[1:] for link in [*links, *clips]} <= set(ids)
    assert set(outline.values("aria-labelledby")) <= set(ids)
    assert "picture1." in "".join(ids)
    assert "picture3." in "".join(ids)


def test_nothing_comes_from_outside_and_nothing_runs():
    text = whole_page()
    assert not re.search(r"https?:|@import|<script|<iframe|<img|url\([^#]", text)
    [policy] = [a["content"] for tag, a in Outline(text).tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_pictures_and_tables_have_names():
    tags = Outline(whole_page()).tags
    assert [a["aria-label"] for tag, a in tags if tag == "svg"] == ["AUC", "AUC", "Gains"]
    assert [tag for tag, _ in tags].count("figcaption") == 3
    assert [tag for tag, _ in tags].count("caption") == 1
    assert [tag for tag, _ in tags if tag in ("h1", "h2")] == ["h1", *["h2"] * 4]
    for a in (a for tag, a in tags if a.get("class") == "wide"):
        assert (a["role"], a["aria-label"], a["tabindex"]) == ("region", "Means of 5 seeds", "0")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["0.7123 ± 0.0012", "not run", "0.7"], "number"),
        (["−0.0021 (−0.003 to −0.001)", "+1,234"], "number"),
        (["1.23M", "12 %", "1e-05", "0.1 s ± 0.02"], "number"),
        (["not run", "0.7"], "name"),
        (["2014-01-01", "2014-02-01"], "name"),
        (["", ""], "name"),
        (["one word after the other, all of them", "1"], "text"),
    ],
)
def test_kinds_of_columns(cells, kind):
    table = Table("t", ["name", "x"], [["1", cell] for cell in cells])
    assert table.kinds == ["name", kind]


def test_a_section_alone_needs_no_list_of_sections():
    text = page.page("t", "q", [Section("only", "So it is.")])
    assert "<nav" not in text
    assert "made-by" not in text
    assert "<nav" in page.page("t", "q", [Section("one"), Section("two")])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("shown", ["whole", "study"])
def test_in_a_browser_nothing_is_wider_than_the_screen_and_nothing_fails(tmp_path, dark, shown):
    """In frames as wide as screens: Chromium's own window is never narrower than 500 pixels."""
    made = whole_page()
    if shown == "study":
        from tests.sitn_tf.studies.pages import study_page

        made = study_page(np.random.default_rng(0).normal(size=(128, 2)))
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(made)}"></iframe>'
        for width in (360, 768, 1280)
    )
    looks = """<script>onload = () => document.title = JSON.stringify(
        [...document.querySelectorAll('iframe')].map(({clientWidth, contentDocument: inside}) => {
            const parts = [...inside.querySelectorAll('body *:not(table *, svg *)')]
            const beyond = parts.filter(part => part.tagName != 'TABLE' &&
                part.getBoundingClientRect().right > clientWidth + 0.5)
            const color = getComputedStyle(inside.body).backgroundColor
            const cut = [...inside.querySelectorAll('svg text')].filter(text => {
                const [own, its] = [text, text.closest('svg')].map(e => e.getBoundingClientRect())
                return own.right > its.right + 2 || own.left < its.left - 2
            })
            const wrong = beyond.length + cut.length
            return [clientWidth, inside.documentElement.scrollWidth, wrong, color]
        }))</script>"""
    style = "<style>:root { color-scheme: light dark } iframe { border: 0 }</style>"
    (tmp_path / "frames.html").write_text(f"<!doctype html>{style}{frames}{looks}")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *scheme, f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         "--enable-logging=stderr", f"file://{tmp_path}/frames.html"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    [said] = re.findall(r"<title>(\[.*\])</title>", done.stdout)
    color = "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"
    assert html.unescape(said) == (
        f'[[360,360,0,"{color}"],[768,768,0,"{color}"],[1280,1280,0,"{color}"]]'
    )
