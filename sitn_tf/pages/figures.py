"""matplotlib figures → SVG text: one look for all pages, the same bytes for the same numbers.

Whoever draws takes an empty `figure`, and makes text of it by `svg`. What is drawn in `INK` or
left black becomes `currentColor`: it follows the page from light to dark. `SERIES` can be read
on both.
"""

import contextlib
import html
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#000000"
SERIES = ("#4a86cf", "#d9772b", "#9a6cb8", "#4f9a5d")

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.prop_cycle": f"cycler('color', {list(SERIES)})",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib: places are the same everywhere
    "font.size": 11,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "sitn_tf",
    "text.parse_math": False,  # names may have dollars
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
}
_ALONE = (
    "<style>svg { color: #222; background: #fff; }"
    "@media (prefers-color-scheme: dark) { svg { color: #ddd; background: #16181c; } }</style>"
)


class Picture(NamedTuple):
    """A caption and an SVG element, which is empty where there is nothing to show."""

    title: str
    svg: str


class Margins(NamedTuple):
    """Pixels around a figure's axes, for their labels."""

    left: float
    right: float
    top: float
    bottom: float


@contextlib.contextmanager
def figure(width: float, height: float, margins: Margins | None = None) -> Iterator["Figure"]:
    """An empty figure of so many pixels; to be drawn and saved within the block.

    Args:
      margins: as wide as the labels that are to come if None, which takes as long as to draw them.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):
        empty = Figure((width / 72, height / 72), layout=None if margins else "constrained")
        if margins is not None:
            empty.subplots_adjust(
                margins.left / width,
                margins.bottom / height,
                1 - margins.right / width,
                1 - margins.top / height,
            )
        yield empty


def svg(figure: "Figure", title: str, *, alone: bool = False) -> str:
    """The figure as an SVG element, for a page or `alone` as a file.

    Args:
      figure: not scaled: a pixel is a point. An artist's `gid` becomes its tooltip.
      title: what screen readers say.
      alone: names the namespace and brings its own colours of text and background.
    """
    stream = io.StringIO()
    silent = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=silent)
    _, _, inside = stream.getvalue().partition("<svg")
    _, _, inside = inside.partition(">")
    inside = re.sub(r"""<g id=("[^"]*"|'[^']*')(/?)>""", _named, inside)
    inside = re.sub(r"\n\s+", "\n", inside).replace("'DejaVu Sans'", "system-ui, sans-serif")
    inside = inside.replace(INK, "currentColor").replace("xlink:href", "href")
    width, height = figure.get_size_inches() * 72
    namespace = 'xmlns="http://www.w3.org/2000/svg" ' if alone else ""
    return (
        f'<svg {namespace}role="img" aria-label="{html.escape(title)}" fill="currentColor" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"{_ALONE if alone else ''}{inside}"
    )


def _named(group: re.Match[str]) -> str:
    """A group without the number of matplotlib, which two pictures of a page would share."""
    name, empty = group[1][1:-1], group[2]
    if empty:
        return ""
    return "<g>" if re.fullmatch(r"[\w.]+_\d+", name) else f"<g><title>{name}</title>"
