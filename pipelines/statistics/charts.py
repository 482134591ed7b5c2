"""Numbers as small SVG pictures with labelled axes, in the look of the other pages' pictures.

Every data set that is built has a page of some fifteen of them. Drawn by matplotlib they took as
long as the records of some 300,000 lines, so they are written out here: rectangles, lines, texts.
"""

import datetime
import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sitn_tf.pages import figures
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.pictures import HEIGHT, WIDTH, Line, short

_MOST_BARS = 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 10, 42
"""Pixels of a plot's margins, where its labels are."""
_SIGN = 6.2
"""Pixels that a sign of a label takes at most, as far as can be known without its font."""
_APART = 5
"""Pixels between two labels."""
_LABEL, _LEGEND_LINE = 10, 18


def day_name(day: float) -> str:
    """Days since 1970 as a date; positions, which are no times, land in 1970."""
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day)))


def power_name(power: float) -> str:
    """The whole numbers n with 2**(power - 1) <= n < 2**power."""
    low, high = 1 << (int(power) - 1), (1 << int(power)) - 1
    return short(low) if low == high else f"{short(low)}–{short(high)}"


class _Axis(NamedTuple):
    """What an axis counts, where it begins and ends, and (place, label) of its ticks."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


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
    summed = _coarser(values, width)
    named = {"day": day_name, "power": power_name, "number": short}[kind]
    low, high = summed[0][0] - 0.5, summed[-1][0] + width - 0.5
    if kind == "power":  # a bar's edges are powers of two themselves
        edges = range(int(summed[0][0]), int(summed[-1][0]) + width + 1)
        ticks = [(edge - 0.5, short(2.0 ** (edge - 1))) for edge in edges]
    else:
        places = _steps(summed[0][0], summed[-1][0], 4 if kind == "day" else 5, smallest=1)
        ticks = [(place, named(place)) for place in places]
    x = _Axis(x_title if width == 1 else f"{x_title}, {width} a bar", low, high, ticks)
    top = 1.05 * max(height for _, height in summed) or 1.0
    y = _Axis(y_title, 0.0, top, [(step, short(step)) for step in _steps(0.0, top, 5)])
    marks = [
        f'<rect x="{_x(x, place - 0.45):.2f}" y="{_y(y, height):.2f}" '
        f'width="{_x(x, place + width - 0.55) - _x(x, place - 0.45):.2f}" '
        f'height="{_y(y, 0) - _y(y, height):.2f}" fill="{colour}">'
        f"<title>{_span(place, width, named)}: {height:,.0f}</title></rect>"
        for place, height in summed
    ]
    return Picture(title, _plot(title, x, y, marks))


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


def share_curves(title: str, lines: Sequence[Line], x_title: str, y_title: str) -> Picture:
    """Shares from 0 to 1 over numbers from 1 on, whose axis is logarithmic; a legend has names."""
    drawn = [line for line in lines if len(line.x)]
    if not drawn:
        return Picture(title, "")
    last = max(1.0, *(math.log10(max(line.x)) for line in drawn))
    x = _Axis(x_title, 0.0, last, [(float(p), short(10.0**p)) for p in range(int(last) + 1)])
    y = _Axis(y_title, 0.0, 1.0, [(part / 4, f"{part / 4:.0%}") for part in range(5)])
    marks, legend = [], []
    for number, line in enumerate(drawn):
        colour = figures.SERIES[number % len(figures.SERIES)]
        places = [
            (_x(x, math.log10(rank)), _y(y, share))
            for rank, share in zip(line.x, line.y, strict=True)
        ]
        path = " ".join(f"{left:.2f},{top:.2f}" for left, top in places)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [
            f'<circle cx="{left:.2f}" cy="{top:.2f}" r="2.5" fill="{colour}">'
            f"<title>{html.escape(line.name)}, {rank:,.0f}: {share:.1%}</title></circle>"
            for (left, top), rank, share in zip(places, line.x, line.y, strict=True)
        ]
        legend.append((line.name, colour))
    return Picture(title, _plot(title, x, y, marks, legend))


def shares(title: str, rows: Sequence[tuple[str, float, str]]) -> Picture:
    """Labelled horizontal bars of (label, share from 0 to 1, colour), each with its number."""
    if not rows:
        return Picture(title, "")
    left = 8 + _SIGN * max(len(label) for label, _, _ in rows)
    room = WIDTH - left - 48
    marks = []
    for place, (label, share, colour) in enumerate(rows):
        middle = 19 + 24 * place
        for part, look in ((1.0, 'opacity="0.1"'), (share, f'fill="{colour}"')):
            bar = f'x="{left:.2f}" y="{middle - 7}" width="{room * part:.2f}" height="14"'
            marks.append(f"<rect {bar} {look}/>")
        marks.append(_text(left - 6, middle + 4, label, "end", _LABEL))
        marks.append(_text(left + room + 6, middle + 4, f"{share:.1%}", "start", _LABEL))
    return Picture(title, _svg(title, 14 + 24 * len(rows), marks))


def parts(title: str, rows: Sequence[tuple[str, float, str]]) -> Picture:
    """One bar of the parts (label, size, colour) of a whole, with a legend below."""
    whole = sum(size for _, size, _ in rows)
    if not whole:
        return Picture(title, "")
    edges = itertools.accumulate((size * WIDTH / whole for _, size, _ in rows), initial=0.0)
    marks = []
    for place, ((label, size, colour), (left, right)) in enumerate(
        zip(rows, itertools.pairwise(edges), strict=True)
    ):
        marks.append(
            f'<rect x="{left:.2f}" y="4" width="{right - left:.2f}" height="40" fill="{colour}"/>'
        )
        marks += _entry(0, 66 + 24 * place, f"{label}: {size:,.0f} ({size / whole:.1%})", colour)
    return Picture(title, _svg(title, 56 + 24 * len(rows), marks))


def _steps(low: float, high: float, most: int, smallest: float = 0.0) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], about `most`; `low` if none."""
    rough = max((high - low) / most, smallest, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * count for count in range(first, last + 1)] or [low]


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return _TOP + (1 - axis.share(value)) * (HEIGHT - _TOP - _BOTTOM)


def _plot(
    title: str,
    x: _Axis,
    y: _Axis,
    marks: Iterable[str],
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """Marks on a grid, with both axes labelled and named, and (name, colour) of a legend below."""
    floor, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    inside = []
    for value, label in y.ticks:
        level = f'y1="{_y(y, value):.2f}" y2="{_y(y, value):.2f}"'
        line = f'<line x1="{_LEFT}" x2="{right}" {level} stroke="currentColor" opacity="0.15"/>'
        inside += [line, _text(_LEFT - 6, _y(y, value) + 3.5, label, "end", _LABEL)]
    inside += marks
    inside.append(f'<path d="M{_LEFT} {floor}H{right}" stroke="currentColor"/>')
    for place, middle, label in _labels(x):
        inside.append(f'<path d="M{place:.2f} {floor}v4" stroke="currentColor"/>')
        inside.append(_text(middle, floor + 15, label, "middle", _LABEL))
    inside.append(_text((_LEFT + right) / 2, HEIGHT - 8, x.title))
    middle = (_TOP + floor) / 2
    turned = f"translate(11 {middle:g}) rotate(-90)"
    inside.append(f'<g transform="{turned}">{_text(0, 0, y.title)}</g>')
    left = 0.0
    for name, colour in legend:
        inside += _entry(left, HEIGHT + 12, name, colour)
        left += 36 + _SIGN * len(name)
    return _svg(title, HEIGHT + (8 + _LEGEND_LINE if legend else 0), inside)


def _labels(axis: _Axis) -> list[tuple[float, float, str]]:
    """(x of the tick, x of the label's middle, label), every n-th so that none runs into another.

    Labels stay within the picture.
    """
    kept: list[tuple[float, float, str]] = []
    for every in range(1, len(axis.ticks) + 1):
        kept, ends = [], -math.inf
        for value, label in axis.ticks[::every]:
            place, half = _x(axis, value), len(label) * _SIGN / 2
            middle = min(max(place, half), WIDTH - half)
            if middle - half < ends:
                break
            kept.append((place, middle, label))
            ends = middle + half + _APART
        else:
            break
    return kept


def _entry(left: float, middle: float, name: str, colour: str) -> list[str]:
    """A line of a legend."""
    square = f'<rect x="{left:.2f}" y="{middle - 6:g}" width="18" height="11" fill="{colour}"/>'
    return [square, _text(left + 25, middle + 4, name, "start")]


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 11) -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{html.escape(text)}</text>"


def _svg(title: str, height: float, inside: Iterable[str]) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" fill="currentColor" '
        f'font-family="system-ui, sans-serif" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}">{"".join(inside)}</svg>'
    )
