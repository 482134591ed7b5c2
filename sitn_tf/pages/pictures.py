"""Numbers → pictures as wide as a phone: intervals, curves, calibration, clusters.

The same numbers give the same bytes. A picture without a single number to show is empty. What a
point is, its tooltip says.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from sitn_tf.pages import figures
from sitn_tf.pages.figures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers: TypeAlias = Sequence[float] | np.ndarray

WIDTH, HEIGHT = 360, 220
"""Of a picture in pixels, and how high most are."""

ABOVE, BELOW = figures.SERIES[:2]
"""Colours of intervals that lie on one side of the reference as a whole."""
ACROSS = "#87909b"
"""Colour of the others."""

_ROW, _GROUP, _AXIS = 38, 28, 48
_LONGEST_NAME = 36
_LEGEND_LINE = 18
_MOST_POINTS = 100
_LINES = ("-", "--", ":")


class Interval(NamedTuple):
    """A row of `intervals`.

    Attributes:
      name: of what was measured.
      mean: NaN where it was not.
      low, high: ends of the interval, NaN where there is none.
      group: rows of one group follow each other below its name.
    """

    name: str
    mean: float
    low: float = math.nan
    high: float = math.nan
    group: str = ""


class Line(NamedTuple):
    """A line of `curves`: points in the order of x; y may be NaN where nothing was measured.

    Attributes:
      name: for the legend.
      x, y: of equal length.
      low, high: ends of the band about y, as many; none if empty.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()


class Bins(NamedTuple):
    """A line of `calibration`: mean prediction, observed click rate and share of each bin."""

    name: str
    predicted: Numbers
    observed: Numbers
    weight: Numbers


class Points(NamedTuple):
    """The clusters of one domain in `clusters`: places on the plane, and a tooltip of each."""

    name: str
    x: Numbers
    y: Numbers
    titles: Sequence[str]


def short(number: float) -> str:
    """12345678 as 12.3M: at most four signs."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def signed(number: float, form: str = "+.4f") -> str:
    """A number with a minus that is as wide as the plus."""
    return f"{number:{form}}".replace("-", "−")


def intervals(
    title: str,
    rows: Sequence[Interval],
    x_title: str,
    *,
    reference: float | None = 0.0,
    form: str = "+.4f",
) -> Picture:
    """A forest plot: each row its name and mean above, its interval and its mean's point below.

    Args:
      reference: where a line goes down through the rows, None for no line. Intervals as a whole
        above it have the colour ABOVE, those below it BELOW, the others ACROSS.
      form: of the numbers, as in a format string.
    """
    ends = [end for row in rows for end in row[1:4] if math.isfinite(end)]
    if not ends:
        return Picture(title, "")
    groups = [(name, list(of)) for name, of in itertools.groupby(rows, lambda row: row.group)]
    named = sum(1 for name, _ in groups if name)
    height = _ROW * len(rows) + _GROUP * named + 4
    with figures.figure(WIDTH, height + _AXIS) as figure:
        axes = figure.subplots()
        top = 0
        for group, of_group in groups:
            if group:
                axes.text(0, top + 18, group, weight="bold", transform=axes.get_yaxis_transform())
                top += _GROUP
            for row in of_group:
                _interval(axes, row, top, reference, form)
                top += _ROW
        shown = ends if reference is None else [*ends, reference]
        first, last = min(shown), max(shown)
        margin = 0.06 * ((last - first) or abs(first) or 1.0)
        axes.set(xlim=(first - margin, last + margin), ylim=(height, 0), xlabel=x_title, yticks=[])
        axes.locator_params("x", nbins=5)
        # No label so near the edge that it needs room beyond: names begin at the picture's edge.
        axes.set_xticks([tick for tick in axes.get_xticks() if first <= tick <= last])
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        return Picture(title, figures.svg(figure, title))


def _interval(axes: "Axes", row: Interval, top: float, reference: float | None, form: str) -> None:
    """Draws a row into the pixels from `top` on."""
    across = axes.get_yaxis_transform()
    name = row.name if len(row.name) <= _LONGEST_NAME else row.name[: _LONGEST_NAME - 1] + "…"
    measured = math.isfinite(row.mean)
    text = signed(row.mean, form) if measured else "not run"
    axes.text(0, top + 16, name, transform=across)
    axes.text(1, top + 16, text, ha="right", transform=across)
    middle = top + 27
    if reference is not None:
        axes.plot([reference] * 2, [middle - 7, middle + 7], color=figures.INK, linewidth=1)
    if not measured:
        return
    color = ABOVE
    if reference is not None and not row.low > reference:
        color = BELOW if row.high < reference else ACROSS
    if math.isfinite(row.low) and math.isfinite(row.high):
        text += f", from {signed(row.low, form)} to {signed(row.high, form)}"
        axes.plot([row.low, row.high], [middle] * 2, color=color, linewidth=2.5)
    [point] = axes.plot(row.mean, middle, "o", color=color, markersize=7)
    point.set_gid(f"{row.name}: {text}")


def curves(
    title: str,
    lines: Sequence[Line],
    x_title: str,
    y_title: str,
    *,
    log_x: bool = False,
    share: bool = False,
) -> Picture:
    """Named lines with points, and a band about those that have one.

    Args:
      lines: told apart by colours, beyond four by dashes too; one alone has no legend.
      log_x: a logarithmic axis of x, all of them above 0.
      share: the axis of y goes from 0 to 100 %.
    """
    finite = [line for line in lines if any(map(math.isfinite, line.y))]
    if not finite:
        return Picture(title, "")
    with figures.figure(WIDTH, HEIGHT + _legend_height(finite)) as figure:
        axes = figure.subplots()
        few = sum(len(line.x) for line in finite) <= _MOST_POINTS
        for number, line in enumerate(finite):
            color, dashes = _look(number)
            axes.plot(line.x, line.y, dashes, color=color, linewidth=2, label=line.name)
            if len(line.low):
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.16, linewidth=0)
            for x, y in zip(line.x, line.y, strict=True) if few else ():
                if math.isfinite(y):
                    [point] = axes.plot(x, y, "o", color=color, markersize=4, clip_on=False)
                    said = f"{y:.1%}" if share else f"{y:.5g}"
                    point.set_gid(f"{line.name}, {_whole(x)}: {said}")
        places = sorted({x for line in finite for x in line.x})
        if log_x:
            logarithmic(axes, 10, places)
        else:
            whole = all(float(place).is_integer() for place in places)
            axes.locator_params("x", nbins=6, integer=whole, min_n_ticks=1)
            axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        axes.set(xlabel=x_title, ylabel=y_title)
        if share:
            axes.set(ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1])
            axes.yaxis.set_major_formatter("{x:.0%}")
        else:
            axes.locator_params("y", nbins=5, min_n_ticks=3)
            axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
        _legend(figure, finite)
        return Picture(title, figures.svg(figure, title))


def calibration(title: str, lines: Sequence[Bins], *, alone: bool = False) -> Picture:
    """Predicted probabilities against observed click rates: on the diagonal they agree.

    Args:
      lines: bins as points, whose areas are their shares; told apart as those of `curves`.
      alone: for a file of its own, with the title in it.
    """
    top = max((float(end) for line in lines for end in (*line[1], *line[2])), default=0.0)
    if not lines or not math.isfinite(top):
        return Picture(title, "")
    top = max(top * 1.05, 1e-6)
    with figures.figure(WIDTH, WIDTH - 30 + _legend_height(lines)) as figure:
        axes = figure.subplots()
        axes.plot([0, top], [0, top], "--", color=figures.INK, alpha=0.4, linewidth=1)
        for number, (name, *bins) in enumerate(lines):
            color, dashes = _look(number)
            axes.plot(bins[0], bins[1], dashes, color=color, linewidth=1.5, label=name)
            largest = max(bins[2])
            for predicted, observed, weight in zip(*bins, strict=True):
                size = 7 * math.sqrt(weight / largest)
                [point] = axes.plot(predicted, observed, "o", color=color, markersize=size)
                point.set_gid(
                    f"{name}: predicted {predicted:.4f}, observed {observed:.4f}, "
                    f"{weight:.1%} of all"
                )
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal", title=title if alone else "")
        axes.set(xlabel="predicted probability", ylabel="observed click rate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: _tick(value))
        axes.locator_params(nbins=5)
        _legend(figure, lines)
        return Picture(title, figures.svg(figure, title, alone=alone))


def clusters(
    title: str,
    source: Points,
    target: Points,
    pairs: Iterable[tuple[int, int]] = (),
    marks: Iterable[tuple[str, int, int]] = (),
) -> Picture:
    """Two domains on one plane whose axes mean nothing, as those of t-SNE (Fig. 3).

    Args:
      pairs: numbers of a source and a target point to join by a line.
      marks: short texts, each beside a source and a target point of these numbers.
    """
    if not (len(source.x) or len(target.x)):
        return Picture(title, "")
    with figures.figure(WIDTH, WIDTH - 40) as figure:
        axes = figure.subplots()
        for one, other in pairs:
            ends = [source.x[one], target.x[other]], [source.y[one], target.y[other]]
            axes.plot(*ends, color=figures.INK, alpha=0.25, linewidth=0.8)
        for domain, color, marker in zip((source, target), figures.SERIES, "os", strict=False):
            for x, y, said in zip(domain.x, domain.y, domain.titles, strict=True):
                [point] = axes.plot(x, y, marker, color=color, markersize=5, markeredgewidth=0)
                point.set_gid(f"{domain.name}: {said}")
            axes.plot([], [], marker, color=color, markersize=6, label=domain.name)
        for text, one, other in marks:
            for x, y in ((source.x[one], source.y[one]), (target.x[other], target.y[other])):
                axes.annotate(text, (x, y), (4, 4), textcoords="offset points", weight="bold")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.2)
        _legend(figure, (source, target))
        return Picture(title, figures.svg(figure, title))


def logarithmic(axes: "Axes", base: int, places: Sequence[float] = ()) -> None:
    """Makes the axis of x logarithmic, its labels short.

    Args:
      places: ascending; a few of them are labelled themselves, for none or many the base's powers.
    """
    axes.set_xscale("log", base=base)
    if 0 < len(places) <= 8:
        near = (places[-1] / places[0]) ** (1 / 7)
        kept = [places[-1]]
        for place in reversed(places[:-1]):
            if kept[-1] / place >= near:
                kept.append(place)
        axes.set_xticks(kept[::-1])
    else:
        axes.locator_params("x", numticks=7)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.minorticks_off()


def _look(number: int) -> tuple[str, str]:
    """Colour and dashes of a picture's line, no two of twelve alike."""
    dashes = _LINES[number // len(figures.SERIES) % len(_LINES)]
    return figures.SERIES[number % len(figures.SERIES)], dashes


def _legend_columns(lines: Sequence[Line | Bins | Points]) -> int:
    longest = max(len(line.name) for line in lines)
    return min(len(lines), max(1, 48 // (longest + 6)))


def _legend_height(lines: Sequence[Line | Bins | Points]) -> int:
    alone = len(lines) == 1
    return 0 if alone else 8 + _LEGEND_LINE * -(-len(lines) // _legend_columns(lines))


def _legend(figure: "Figure", lines: Sequence[Line | Bins | Points]) -> None:
    if len(lines) > 1:
        figure.legend(loc="outside lower left", ncols=_legend_columns(lines), columnspacing=1.2)


def _tick(value: float) -> str:
    """A label of an axis: all digits of small numbers, large ones short."""
    return (short(value) if abs(value) >= 1e4 else f"{value:.6g}").replace("-", "−")


def _whole(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"
