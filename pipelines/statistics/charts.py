"""Numbers as small SVG pictures with labelled axes."""

import datetime
import math
from collections.abc import Callable, Sequence

from sitn_tf.pages import figures
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.pictures import HEIGHT, WIDTH, logarithmic, short

_MOST_BARS = 60
_MARGINS = figures.Margins(left=56, right=32, top=8, bottom=44)
"""Of bars: for numbers as `short` has them on the left, and half a date on the right."""


def day_name(day: float) -> str:
    """Days since 1970 as a date; positions, which are no times, land in 1970."""
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day)))


def power_name(power: float) -> str:
    """The whole numbers n with 2**(power - 1) <= n < 2**power."""
    low, high = 1 << (int(power) - 1), (1 << int(power)) - 1
    return short(low) if low == high else f"{short(low)}–{short(high)}"


def bars(
    title: str,
    values: Sequence[tuple[float, float]],
    colour: str,
    x_title: str,
    y_title: str,
    kind: str = "number",
) -> Picture:
    """Bars of (whole number, height) pairs, ascending; neighbours are neighbours.

    Args:
      title: of the picture; x_title, y_title: of its axes.
      values: places without a bar may be left out.
      colour: of the bars.
      kind: what places are: "number", "day" (since 1970) or "power" (of two).
    """
    if not values:
        return Picture(title, "")
    width = max(1, math.ceil((values[-1][0] - values[0][0] + 1) / _MOST_BARS))
    places, heights = zip(*_coarser(values, width), strict=True)
    named = {"day": day_name, "power": power_name, "number": short}[kind]
    with figures.figure(WIDTH, HEIGHT, _MARGINS) as figure:
        axes = figure.subplots()
        if kind == "power":
            starts = [2.0 ** (place - 1) for place in places]
            drawn = axes.bar(starts, heights, starts, align="edge", color=colour, linewidth=0)
            logarithmic(axes, 2)
        else:
            starts = [place - 0.45 for place in places]
            wide = width - 0.1
            drawn = axes.bar(starts, heights, wide, align="edge", color=colour, linewidth=0)
            nbins = 4 if kind == "day" else 5
            axes.locator_params("x", nbins=nbins, integer=True, min_n_ticks=1)
            axes.xaxis.set_major_formatter(lambda place, _: named(place))
        for bar, place, height in zip(drawn, places, heights, strict=True):
            bar.set_gid(f"{_span(place, width, named)}: {height:,.0f}")
        axes.yaxis.set_major_formatter(lambda height, _: short(height))
        axes.locator_params("y", nbins=5)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=x_title if width == 1 else f"{x_title}, {width} a bar", ylabel=y_title)
        return Picture(title, figures.svg(figure, title))


def _span(place: float, width: int, named: Callable[[float], str]) -> str:
    last = place + width - 1
    return named(place) if width == 1 else f"{named(place)} to {named(last)}"


def _coarser(values: Sequence[tuple[float, float]], width: int) -> Sequence[tuple[float, float]]:
    """Sums neighbours, so that years of days still make a small picture."""
    sums: dict[float, float] = {}
    first = values[0][0]
    for x, height in values:
        place = first + (x - first) // width * width
        sums[place] = sums.get(place, 0.0) + height
    return sorted(sums.items())


def shares(title: str, rows: Sequence[tuple[str, float, str]]) -> Picture:
    """Labelled horizontal bars of (label, share from 0 to 1, colour), each with its number."""
    if not rows:
        return Picture(title, "")
    labels, parts, colours = zip(*rows, strict=True)
    places = range(len(rows))
    with figures.figure(WIDTH, 14 + 24 * len(rows)) as figure:
        axes = figure.subplots()
        axes.barh(places, 1.0, 0.6, color=figures.INK, alpha=0.1, linewidth=0)
        axes.barh(places, parts, 0.6, color=colours, linewidth=0)
        for place, part in zip(places, parts, strict=True):
            axes.text(1.03, place, f"{part:.1%}", va="center", fontsize=10)
        axes.set_yticks(places, labels)
        axes.set(xticks=[], xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        return Picture(title, figures.svg(figure, title))


def parts(title: str, rows: Sequence[tuple[str, float, str]]) -> Picture:
    """One bar of the parts (label, size, colour) of a whole, with a legend below."""
    whole = sum(size for _, size, _ in rows)
    if not whole:
        return Picture(title, "")
    with figures.figure(WIDTH, 56 + 24 * len(rows)) as figure:
        axes = figure.subplots()
        left = 0.0
        for text, size, colour in rows:
            named = f"{text}: {size:,.0f} ({size / whole:.1%})"
            axes.barh(0, size, 1.0, left, color=colour, label=named, linewidth=0)
            left += size
        axes.set(xlim=(0, whole), ylim=(-0.5, 0.5))
        axes.axis("off")
        figure.legend(loc="outside lower left")
        return Picture(title, figures.svg(figure, title))
