"""Sections of texts, tables, pictures and commands → one self-contained HTML page.

Every page of the project has this shell: it asks for nothing from outside and runs no script (its
content security policy forbids both), follows the reader's light or dark, fits a phone and can be
printed. All texts are escaped. The same sections give the same bytes.
"""

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sitn_tf.pages.figures import Picture

_LONGEST_NAME = 32


class Table(NamedTuple):
    """Rows below a head; the first cell of a row is its name.

    Attributes:
      caption: what the rows are.
      head: a title a column.
      rows: as many cells each; columns of numbers are aligned to the right.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def kinds(self) -> list[str]:
        """Of columns: "number", "text" that may fill several lines, or "name", which may not."""
        return [self._kind(n) for n in range(len(self.head))]

    def _kind(self, column: int) -> str:
        filled = [row[column] for row in self.rows if row[column]]
        if column and 2 * sum(map(_is_number, filled)) > len(filled):
            return "number"
        return "text" if max(map(len, filled), default=0) > _LONGEST_NAME else "name"


class Code(NamedTuple):
    """Commands or other lines to copy."""

    lines: Sequence[str]


class Alarm(NamedTuple):
    """A paragraph that nobody should miss."""

    text: str


class Section(NamedTuple):
    """A part of a page that links can lead to.

    Attributes:
      title: heading.
      answer: what it says, in one sentence; may be empty.
      body: in this order; a text is a paragraph. Tables and pictures stand side by side where they
        have the room.
    """

    title: str
    answer: str = ""
    body: Sequence[str | Table | Picture | Code | Alarm] = ()


class MadeBy(NamedTuple):
    """How anyone can make the page again.

    Attributes:
      commands: that made what it shows.
      facts: by name, such as seeds, versions, data set, time.
    """

    commands: Sequence[str] = ()
    facts: Mapping[str, str] = {}


Content = tuple[str, str, list[Section], MadeBy]
"""The arguments of `page`, and of `markdown.document`, which makes the same of them."""


def page(title: str, asked: str, sections: Sequence[Section], made_by: MadeBy | None = None) -> str:
    """The whole page as an HTML file.

    Args:
      asked: the question, or what the page is about.
      made_by: shown last.
    """
    import jinja2

    text = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(text)
    pictures = 0

    def own_ids(svg: str) -> str:
        nonlocal pictures
        pictures += 1
        return _with_prefix(svg, f"picture{pictures}.")

    anchors = _anchors([section.title for section in sections])
    return template.render(
        title=title,
        asked=asked,
        sections=list(zip(anchors, sections, strict=True)),
        made_by=made_by,
        own_ids=own_ids,
    )


_NUMBER = re.compile(
    r"""([<>]\ ?)?[+−-]?\d[\d.,]*([eE]-?\d+)?(\ ?[kMGs%×])?  # a number and its unit
    (\ ?\+\ ?[\d.,]+)*                               # a sum's others
    (\ ?±\ ?[\d.,]+(\ ?%)?)?                        # its margin
    (\ ?[\[(]([^a-z]|to)*[\])])?                    # its interval
    """,
    re.VERBOSE,
)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _anchors(titles: Sequence[str]) -> list[str]:
    """Ids of sections, each of them once: a title's letters and digits, numbered where needed."""
    anchors: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        tries = (name if n == 1 else f"{name}-{n}" for n in range(1, len(titles) + 1))
        anchors.append(next(anchor for anchor in tries if anchor not in [*anchors, "made-by"]))
    return anchors


def _with_prefix(svg: str, prefix: str) -> str:
    """The picture with ids of its own: matplotlib gives equal shapes of two pictures equal ids."""

    def renamed(tag: re.Match[str]) -> str:
        return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", tag[0])

    return re.sub(r"<(?!svg)[^>]*>", renamed, svg)
