"""Charts as inline SVG. Colours come from the page's CSS, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, sqrt

from markupsafe import Markup, escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 26.0, 34.0
_FEWEST_BINS, _MOST_BINS = 8, 48
_MOST_DOTS = 240


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round numbers within the scale."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / count
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first = ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, floor(self.high / step + 1e-9) + 1)]


def bins(values: Sequence[float], low: float, high: float) -> list[int]:
    """How many values fall in each of equally wide bins; as many bins as the root of the number of values."""
    count = max(_FEWEST_BINS, min(_MOST_BINS, round(sqrt(len(values)) * 1.5)))
    made = [0] * count
    width = (high - low) / count or 1.0
    for value in values:
        if low <= value <= high:
            made[min(count - 1, int((value - low) / width))] += 1
    return made


def histogram(
    values: Sequence[float], marks: Sequence[tuple[str, float]], *, label: str, width: float = 560, height: float = 210
) -> Markup:
    """Values in ms as a histogram; ``marks`` are vertical lines with names, such as the median.

    The axis ends where the bulk of the values does; how many lie beyond it is written there, and marks beyond it are left out.
    """
    low = min(values)
    high = low + _visible(values)
    beyond = sum(value > high for value in values)
    counts = bins(values, low, high)
    x = Axis(low, high, _LEFT, width - _RIGHT)
    y = Axis(0, max(counts) or 1, height - _BOTTOM, _TOP)
    bar = (x.end - x.start) / len(counts)
    shapes = [
        _rect("bar", x.start + i * bar + 0.5, y.at(count), max(bar - 1, 0.5), y.start - y.at(count))
        for i, count in enumerate(counts)
        if count
    ]
    shapes += _marks([mark for mark in marks if mark[1] <= high], x, height)
    shapes += _x_axis(x, height, "ms")
    if beyond:
        shapes.append(_text("note", x.end, _TOP + 12, f"{beyond} slower →", anchor="end"))
    return _svg(width, height, label, shapes)


def _visible(values: Sequence[float]) -> float:
    """How far above the lowest value the axis reaches: to the highest, but not far beyond the 90th percentile."""
    ranked = sorted(values)
    bulk = ranked[int(0.9 * (len(ranked) - 1))] - ranked[0]
    return min(ranked[-1] - ranked[0], 3 * bulk or ranked[-1]) * 1.02 or ranked[0] * 0.01 or 1e-6


def runs(values: Sequence[float], *, label: str, width: float = 560, height: float = 210) -> Markup:
    """Values in ms in the order in which they were measured: drift and throttling show as a slope or a step.

    Many are drawn as groups: a dot for the group's median, a line from its lowest to its highest.
    """
    x = Axis(1, max(len(values), 2), _LEFT, width - _RIGHT)
    top = min(values) + 1.5 * _visible(values)
    y = Axis(0, top, height - _BOTTOM, 8)
    shapes = []
    for tick in y.ticks(3):
        shapes += [
            _line("grid", x.start, y.at(tick), x.end, y.at(tick)),
            _text("tick", x.start - 6, y.at(tick) + 4, _short(tick), anchor="end"),
        ]
    size = ceil(len(values) / _MOST_DOTS)
    for start in range(0, len(values), size):
        group = sorted(min(value, top) for value in values[start : start + size])
        place = x.at(start + (len(group) + 1) / 2)
        if len(group) > 1:
            shapes.append(_line("range", place, y.at(group[0]), place, y.at(group[-1])))
        shapes.append(
            Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="1.8"/>').format(place, y.at(group[len(group) // 2]))
        )
    shapes += _x_axis(x, height, "run", whole=True)
    return _svg(width, height, label, shapes)


def over_time(
    seconds: Sequence[float], values: Sequence[float], *, label: str, width: float = 560, height: float = 210
) -> Markup:
    """Values in ms at moments of a long measurement, from zero up: what heat does to a device."""
    x = Axis(0, max(*seconds, 1.0), _LEFT, width - _RIGHT)
    y = Axis(0, 1.2 * max(values), height - _BOTTOM, 8)
    shapes = []
    for tick in y.ticks(3):
        shapes += [
            _line("grid", x.start, y.at(tick), x.end, y.at(tick)),
            _text("tick", x.start - 6, y.at(tick) + 4, _short(tick), anchor="end"),
        ]
    for second, value in zip(seconds, values, strict=True):
        shapes.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="1.8"/>').format(x.at(second), y.at(value)))
    shapes += _x_axis(x, height, "s")
    return _svg(width, height, label, shapes)


@dataclass(frozen=True)
class Point:
    """A bundle on the Pareto plot: lower ``x`` is better; ``kind`` chooses the colour."""

    name: str
    x: float
    y: float
    kind: int = 0


def frontier(points: Sequence[Point], *, higher_is_better: bool) -> list[Point]:
    """The points that no other one beats in both, from left to right."""
    best: list[Point] = []
    sign = 1 if higher_is_better else -1
    for point in sorted(points, key=lambda p: (p.x, -sign * p.y)):
        if not best or sign * point.y > sign * best[-1].y:
            best.append(point)
    return best


def pareto(
    points: Sequence[Point],
    *,
    x_name: str,
    y_name: str,
    higher_is_better: bool,
    label: str,
    width: float = 760,
    height: float = 340,
) -> Markup:
    """Latency against accuracy (or size), with the line of those that nothing beats."""
    left = 64.0
    x = Axis(0, max(p.x for p in points) * 1.12 or 1, left, width - 130)
    ys = [p.y for p in points]
    pad = (max(ys) - min(ys)) * 0.15 or abs(max(ys)) * 0.05 or 1
    y = Axis(max(0, min(ys) - pad), max(ys) + pad, height - 46, 18)
    shapes: list[Markup] = []
    for tick in y.ticks():
        shapes += [
            _line("grid", x.start, y.at(tick), x.end, y.at(tick)),
            _text("tick", x.start - 8, y.at(tick) + 4, _short(tick), anchor="end"),
        ]
    shapes += _x_axis(x, height - 12, x_name)
    shapes.append(_text("axis", x.start, 12, y_name))
    best = frontier(points, higher_is_better=higher_is_better)
    path = " ".join(f"{x.at(p.x):.1f},{y.at(p.y):.1f}" for p in best)
    shapes.append(Markup('<polyline class="frontier" points="{}"/>').format(path))
    for point in points:
        shapes.append(
            Markup('<circle class="point kind{}" cx="{:.1f}" cy="{:.1f}" r="6"><title>{}</title></circle>').format(
                point.kind % 5, x.at(point.x), y.at(point.y), point.name
            )
        )
        shapes.append(_text("name", x.at(point.x) + 10, y.at(point.y) + 4, point.name))
    return _svg(width, height, label, shapes)


def _marks(marks: Sequence[tuple[str, float]], x: Axis, height: float) -> list[Markup]:
    """Lines with their names above; a name that would run into the one before it is left to the table below."""
    shapes, free = [], 0.0
    for name, value in marks:
        place = x.at(value)
        shapes.append(_line("mark", place, _TOP - 4, place, height - _BOTTOM))
        if place >= free:
            anchor = "end" if place > x.end - 20 else "middle"
            shapes.append(_text("marked", place, _TOP - 10, name, anchor=anchor))
            free = place + 8.0 * len(name)
    return shapes


def _x_axis(x: Axis, height: float, unit: str, *, whole: bool = False) -> list[Markup]:
    base = height - _BOTTOM
    shapes = [_line("axis", x.start, base, x.end, base)]
    for tick in x.ticks():
        if not whole or tick == int(tick):
            shapes += [
                _line("axis", x.at(tick), base, x.at(tick), base + 4),
                _text(
                    "tick", x.at(tick), base + 17, _short(tick), anchor="end" if x.at(tick) > x.end - 12 else "middle"
                ),
            ]
    shapes.append(_text("axis", x.end, base + 30, unit, anchor="end"))
    return shapes


def _short(value: float) -> str:
    return f"{value:.6g}"


def _svg(width: float, height: float, label: str, shapes: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(width, height, label)
    return head + Markup("").join(shapes) + Markup("</svg>")


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"/>').format(
        kind, x, y, width, height
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(text)
    )
