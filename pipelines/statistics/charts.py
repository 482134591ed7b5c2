"""Numbers as small SVG pictures with labelled axes."""

import dataclasses
import datetime
import html
import math
from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 48
_ROOM, _TALL = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_MOST_BARS = 150
_SIGN_WIDTH = 6.5
_FONT = 'font-family="system-ui, sans-serif" font-size="11" fill="#444"'


def short(number: float) -> str:
    """12345678 as 12.3M: at most four signs."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def day_name(day: float) -> str:
    """Days since 1970 as a date; positions, which are no times, land in 1970."""
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day)))


def power_name(power: int) -> str:
    """The whole numbers n with 2**(power - 1) <= n < 2**power."""
    low, high = 1 << (power - 1), (1 << power) - 1
    return short(low) if low == high else f"{short(low)}–{short(high)}"


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis: what it counts, where it begins and ends, and the labels on it."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def round_steps(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], at most about `most`."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def heights(title: str, highest: float) -> Axis:
    """A vertical axis of counts from 0 to a round number above the highest."""
    steps = round_steps(0, highest or 1.0)
    top = highest if steps[-1] >= highest else steps[-1] + steps[1]
    top = max(top, 1e-12)
    return Axis(title, 0.0, top, [(v, short(v)) for v in round_steps(0, top)])


def _thinned(ticks: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    """Every n-th label, so that none runs into the next."""
    widest = max((len(text) for _, text in ticks), default=1) * _SIGN_WIDTH + 12
    return ticks[:: max(1, math.ceil(len(ticks) * widest / (_ROOM + widest)))]


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(text)}</text>'


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.share(value) * _ROOM


def _y(axis: Axis, value: float) -> float:
    return _TOP + (1 - axis.share(value)) * _TALL


def figure(title: str, width: int, height: int, inside: Sequence[str]) -> str:
    """A captioned picture."""
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg {_FONT} viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(inside)}</svg></figure>'
    )


def _plot(title: str, x: Axis, y: Axis, marks: Sequence[str]) -> str:
    """Marks on a grid, with both axes labelled and named."""
    floor = _TOP + _TALL
    grid = [
        f'<line stroke="#ddd" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(y, v):.1f}" '
        f'y2="{_y(y, v):.1f}"/>{_text(_LEFT - 6, _y(y, v) + 4, text, "end")}'
        for v, text in y.ticks
    ]
    ticks = [
        f'<line stroke="#888" x1="{_x(x, v):.1f}" x2="{_x(x, v):.1f}" y1="{floor}" '
        f'y2="{floor + 4}"/>{_label(_x(x, v), floor + 17, text)}'
        for v, text in _thinned(x.ticks)
    ]
    line = f'<line stroke="#888" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    turned = f' transform="rotate(-90 12 {_TOP + _TALL / 2})"'
    names = [
        _text(_LEFT + _ROOM / 2, _HEIGHT - 8, x.title),
        _text(12, _TOP + _TALL / 2, y.title, extra=turned),
    ]
    return figure(title, _WIDTH, _HEIGHT, [*grid, *marks, line, *ticks, *names])


def _label(x: float, y: float, text: str) -> str:
    """Text centred below a tick, but inside the picture."""
    half = len(text) * _SIGN_WIDTH / 2
    return _text(min(max(x, half), _WIDTH - half), y, text)


def _nothing(title: str) -> str:
    return figure(title, _WIDTH, _HEIGHT, [_text(_WIDTH / 2, _HEIGHT / 2, "nothing to show")])


def bars(
    title: str,
    values: Sequence[tuple[float, float]],
    colour: str,
    x_title: str,
    y_title: str,
    kind: str = "number",
) -> str:
    """Bars of (whole number, height) pairs, ascending; neighbours are neighbours.

    Args:
      title: of the picture; x_title, y_title: of its axes.
      values: places without a bar may be left out.
      colour: of the bars.
      kind: what places are: "number", "day" (since 1970) or "power" (of two).
    """
    if not values:
        return _nothing(title)
    width = max(1, math.ceil((values[-1][0] - values[0][0] + 1) / _MOST_BARS))
    values = _coarser(values, width)
    low, high = values[0][0], values[-1][0] + width
    named = {"day": day_name, "power": lambda v: power_name(int(v)), "number": short}[kind]
    if kind == "power" or high - low <= 5 * width:
        places = [low + i * width for i in range(round((high - low) / width))]
    else:
        places = sorted({round(v) for v in round_steps(low, high - width)})
    x = Axis(x_title if width == 1 else f"{x_title}, {width} a bar", low, high,
             [(place + width / 2, named(place)) for place in places])  # fmt: skip
    y = heights(y_title, max(height for _, height in values))
    wide = _ROOM * width / (high - low)
    marks = [
        f'<rect x="{_x(x, place) + wide * 0.05:.1f}" y="{_y(y, height):.1f}" '
        f'width="{wide * 0.9:.1f}" height="{_TOP + _TALL - _y(y, height):.1f}" fill="{colour}">'
        f"<title>{_span(place, width, named)}: {height:,.0f}</title></rect>"
        for place, height in values
    ]
    return _plot(title, x, y, marks)


def _span(place: float, width: int, named: Callable[[float], str]) -> str:
    last = place + width - 1
    return named(place) if width == 1 else f"{named(place)} to {named(last)}"


def _coarser(values: Sequence[tuple[float, float]], width: int) -> Sequence[tuple[float, float]]:
    """Sums neighbours, so that years of days still make a small picture."""
    if width <= 1:
        return values
    sums: dict[float, float] = {}
    first = values[0][0]
    for x, height in values:
        place = first + (x - first) // width * width
        sums[place] = sums.get(place, 0.0) + height
    return sorted(sums.items())


def curve(
    title: str, points: Sequence[tuple[float, float]], colour: str, x_title: str, y_title: str
) -> str:
    """A share (0 to 1) over a rank (from 1), on a logarithmic axis."""
    if not points:
        return _nothing(title)
    last = math.log10(max(2.0, points[-1][0]))
    x = Axis(x_title, 0.0, last, [(float(p), short(10.0**p)) for p in range(int(last) + 1)])
    y = Axis(y_title, 0.0, 1.0, [(share / 4, f"{share / 4:.0%}") for share in range(5)])
    places = [(_x(x, math.log10(rank)), _y(y, share)) for rank, share in points]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    marks = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    marks += [
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}">'
        f"<title>{rank:,.0f}: {share:.1%}</title></circle>"
        for (left, top), (rank, share) in zip(places, points, strict=True)
    ]
    return _plot(title, x, y, marks)


def shares(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Labelled horizontal bars of (label, share from 0 to 1, colour), each with its number."""
    if not rows:
        return _nothing(title)
    label, step = 196, 22
    room = _WIDTH - label - 60
    marks = []
    for place, (text, share, colour) in enumerate(rows):
        top = 8 + place * step
        marks += [
            _text(label - 8, top + 12, text, "end"),
            f'<rect x="{label}" y="{top}" width="{room}" height="15" fill="#e6e6e6"/>',
            f'<rect x="{label}" y="{top}" width="{room * share:.1f}" height="15" fill="{colour}"/>',
            _text(label + room + 6, top + 12, f"{share:.1%}", "start"),
        ]
    return figure(title, _WIDTH, 16 + len(rows) * step, marks)


def parts(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """One bar of the parts (label, size, colour) of a whole, with a legend below."""
    whole = sum(size for _, size, _ in rows)
    if not whole:
        return _nothing(title)
    left, marks = 8.0, []
    for place, (text, size, colour) in enumerate(rows):
        wide = size / whole * (_WIDTH - 16)
        top = 62 + place * 22
        marks += [
            f'<rect x="{left:.1f}" y="8" width="{wide:.1f}" height="36" fill="{colour}"/>',
            f'<rect x="8" y="{top}" width="14" height="14" fill="{colour}"/>',
            _text(30, top + 12, f"{text}: {size:,.0f} ({size / whole:.1%})", "start"),
        ]
        left += wide
    return figure(title, _WIDTH, 66 + len(rows) * 22, marks)
