"""Small calm plots as inline SVG, drawn from data: no script, no font, no network. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar."""

    name: str
    """Its CSS class is `part-` and this name, so it is one word."""
    amount: float


@dataclass(frozen=True, slots=True)
class Frame:
    """Where data lands in a plot of `width` x `height` user units; the y axis begins at 0."""

    width: float
    height: float
    x_most: float
    y_most: float
    left: float = 52
    right: float = 12
    top: float = 12
    bottom: float = 34

    def x(self, value: float) -> float:
        return round(self.left + value / self.x_most * (self.width - self.left - self.right), 2)

    def y(self, value: float) -> float:
        return round(self.height - self.bottom - value / self.y_most * (self.height - self.top - self.bottom), 2)


def rates(timeline: Sequence[Point], *, bins: int = 60) -> list[Point]:
    """Turn a running total into a rate per equal slice of time.

    Args:
        timeline: (seconds since the start, total so far), both never falling; the total is 0 at 0 seconds.
        bins: how many slices, at most.

    Returns:
        (end of the slice in seconds, rate per second) for each slice. Growth between two entries is spread evenly
        over the time between them, so rate times slice adds up to the last total.
    """
    known = [(0.0, 0.0), *timeline]
    end = known[-1][0]
    if end <= 0:
        return []
    edges = [end * k / bins for k in range(bins + 1)]
    totals = [_interpolate(known, edge) for edge in edges]
    return [(edges[k + 1], (totals[k + 1] - totals[k]) / (end / bins)) for k in range(bins)]


def ticks(most: float, *, wanted: int = 4) -> list[float]:
    """Round values from 0 up to the first that reaches `most`, about `wanted` steps apart."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    count = math.ceil(most / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(count + 1)]


def step_plot(points: Sequence[Point], *, mean: float, label: str, unit: str) -> Markup:
    """A filled step line of `points`, (end of slice in seconds, value), with a dashed line at `mean`."""
    seconds, time_unit, divisor = points[-1][0], *_time_unit(points[-1][0])
    levels = ticks(max(mean, *(value for _, value in points)))
    frame = Frame(720, 220, seconds, levels[-1])
    corners, before = [(0.0, 0.0)], 0.0
    for end, value in points:
        corners += [(before, value), (end, value)]
        before = end
    outline = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in [*corners, (seconds, 0.0)])
    line = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in corners[1:])
    # The last round value may lie beyond the data: the axis ends where the data does.
    times = [tick for tick in ticks(seconds / divisor, wanted=6) if tick * divisor <= seconds * 1.0001]
    body = [
        *(_level(frame, level) for level in levels),
        *(_time(frame, tick, tick * divisor) for tick in times),
        Markup('<polygon class="area" points="{}"/><polyline class="line" points="{}"/>').format(outline, line),
        Markup('<line class="mean" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            frame.x(0), frame.x(seconds), frame.y(mean), frame.y(mean)
        ),
        Markup('<text x="{}" y="{}" class="end">{}</text>').format(frame.x(seconds), frame.height - 2, time_unit),
    ]
    title = Markup("<title>{}: mean {} {}</title>").format(label, number(mean), unit)
    return Markup('<svg class="plot" viewBox="0 0 720 220" role="img" aria-label="{}">{}{}</svg>').format(
        label, title, Markup("").join(body)
    )


def part_bar(parts: Sequence[Part], *, label: str, most: float | None = None, height: float = 14) -> Markup:
    """A horizontal bar of `parts`, one after the other; `most` is what the full width stands for (their sum)."""
    whole = most if most is not None else sum(part.amount for part in parts)
    drawn, x = [], 0.0
    for part in parts:
        width = 1000 * part.amount / whole if whole else 0.0
        drawn.append(
            Markup('<rect class="part-{}" x="{:.2f}" width="{:.2f}" height="{}"><title>{}: {}</title></rect>').format(
                part.name, x, width, height, part.name, number(part.amount)
            )
        )
        x += width
    return Markup(
        '<svg class="bar" viewBox="0 0 1000 {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(height, label, Markup("").join(drawn))


def number(value: float) -> str:
    """A number for reading: thousands grouped, about three digits after a small one."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _interpolate(known: Sequence[Point], at: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(known):
        if at <= x1:
            return y1 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return known[-1][1]


def _time_unit(seconds: float) -> tuple[str, float]:
    for name, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * length:
            return name, length
    return "seconds", 1.0


def _level(frame: Frame, level: float) -> Markup:
    y = frame.y(level)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="end" x="{}" y="{}">{}</text>'
    ).format(frame.left, frame.width - frame.right, y, y, frame.left - 8, y + 4, number(level))


def _time(frame: Frame, tick: float, seconds: float) -> Markup:
    return Markup('<text class="mid" x="{}" y="{}">{}</text>').format(
        frame.x(seconds), frame.height - frame.bottom + 18, number(tick)
    )
