"""Drawing one panel of a board: big numbers, lines, bars, tables. Lengths are inches, from the page's upper left."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from monitoring.units import scale, shown, split

INK, FAINT, GRID, EDGE = "#24292f", "#6e7781", "#e6e8eb", "#d8dce1"
HEX = {
    "green": "#37872d",
    "blue": "#1f60c4",
    "orange": "#e0700a",
    "red": "#c4162a",
    "purple": "#8f3bb8",
    "yellow": "#e0b400",
    "dark-red": "#7a0c1a",
    "text": INK,
}
PALETTE = ("#1f60c4", "#e0a30a", "#37872d", "#8f3bb8", "#e0700a", "#16a0a0", "#c4162a", "#7c6f5b", "#d0558f", "#4b5563")
ROW, TITLE = 0.175, 0.34
"""Heights of a line of a legend or table, and of a panel's title."""
LEGEND_ROWS = 7
DAY = 86_400.0
"""Dates are days since 1970 to the library that draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A series with the name that the board gives it."""

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells as text with their colours, under headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Box:
    """Where something is drawn."""

    left: float
    top: float
    width: float
    height: float

    def inside(self, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Box:
        return Box(self.left + left, self.top + top, self.width - left - right, self.height - top - bottom)


class Page:
    """A picture of a given size that panels are drawn on."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=100, facecolor="#f4f5f7")
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        self._widths: dict[tuple[str, float, str], float] = {}
        self._width, self._height = width, height
        self._paper = self.figure.add_axes((0, 0, 1, 1))
        self._paper.set(xlim=(0, width), ylim=(height, 0))
        self._paper.axis("off")

    def text(self, x: float, y: float, text: str, size: float, colour: str = INK, **more: Any) -> None:
        # A dollar sign would begin a formula.
        self._paper.text(x, y, text.replace("$", r"\$"), fontsize=size, color=colour, va="center", **more)

    def card(self, box: Box) -> None:
        style = "round,pad=0,rounding_size=0.05"
        corner = (box.left, box.top)
        self._paper.add_patch(
            FancyBboxPatch(
                corner, box.width, box.height, boxstyle=style, facecolor="white", edgecolor=EDGE, linewidth=1
            )
        )

    def bar(self, box: Box, colour: str, alpha: float = 1.0) -> None:
        self._paper.add_patch(
            Rectangle((box.left, box.top), box.width, box.height, facecolor=colour, alpha=alpha, edgecolor="none")
        )

    def axes(self, box: Box) -> Axes:
        bottom = 1 - (box.top + box.height) / self._height
        place = (box.left / self._width, bottom, box.width / self._width, box.height / self._height)
        return self.figure.add_axes(place)

    def width_of(self, text: str, size: float, weight: str = "normal") -> float:
        known = self._widths.get((text, size, weight))
        if known is None:
            drawn = self._paper.text(0, 0, text.replace("$", r"\$"), fontsize=size, fontweight=weight)
            known = float(drawn.get_window_extent(self._renderer).width / self.figure.dpi)
            drawn.remove()
            self._widths[text, size, weight] = known
        return known

    def cut(self, text: str, width: float, size: float, weight: str = "normal") -> str:
        """As much of a text as fits."""
        if self.width_of(text, size, weight) <= width:
            return text
        fits = bisect_right(range(len(text)), width, key=lambda end: self.width_of(text[:end] + "…", size, weight))
        return text[: max(0, fits - 1)] + "…"

    def fitting(self, text: str, width: float, largest: float) -> float:
        """The size of type in which a text fits."""
        return min(largest, largest * width / max(self.width_of(text, largest, "bold"), 0.01))


def draw_frame(page: Page, box: Box, title: str, unit: str = "") -> Box:
    """A panel's card and title, with a unit that is said once; where its content goes."""
    page.card(box)
    title = page.cut(title, box.width - 0.2, 9, "bold")
    page.text(box.left + 0.12, box.top + 0.2, title, 9, weight="bold")
    page.text(box.left + 0.2 + page.width_of(title, 9, "bold"), box.top + 0.2, unit, 8, FAINT)
    return box.inside(left=0.12, top=TITLE, right=0.12, bottom=0.08)


def draw_nothing(page: Page, box: Box, text: str) -> None:
    page.text(box.left + box.width / 2, box.top + box.height / 2, text, 11, FAINT, ha="center")


def draw_big(page: Page, box: Box, panel: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """Big numbers side by side, with their names where there are several, and how they came to be."""
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    named = options["textMode"] == "name"
    each = box.width / len(lines)
    texts = [line.name if named else _whole_or_not(line.last, defaults) for line in lines]
    size = min(page.fitting(text, each * 0.9, 27) for text in texts)
    for place, (line, text) in enumerate(zip(lines, texts, strict=True)):
        middle = box.left + each * (place + 0.5)
        colour = _by_threshold(line.last, defaults["thresholds"])
        if options["graphMode"] == "area" and len(line.values) > 1:
            _spark(
                page.axes(Box(box.left + each * place, box.top + box.height * 0.55, each, box.height * 0.4)),
                line,
                colour,
            )
        lifted = 0.3 if options["graphMode"] == "area" else 0.44
        page.text(middle, box.top + box.height * lifted, text, size, colour, ha="center", weight="bold")
        if len(lines) > 1 or (options["graphMode"] == "none" and line.name and not named):
            name = page.cut(line.name, each * 0.9, 9)
            page.text(middle, box.top + box.height * lifted + 0.42, name, 9, FAINT, ha="center")


def draw_lines(
    page: Page, box: Box, panel: Mapping[str, Any], lines: Sequence[Line], span: tuple[float, float]
) -> None:
    """Lines over time, and a legend with the least, mean and last value of each."""
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], split(defaults["unit"])[0]
    stacking = custom["stacking"]["mode"]
    unit = "percentunit" if stacking == "percent" else unit
    lines = _as_shares(lines) if stacking == "percent" else lines
    listed = _listed(lines)
    legend = ROW * (len(listed) + 1 + (len(lines) > len(listed)))
    axes = page.axes(box.inside(left=0.62, top=0.06, right=0.1, bottom=legend + 0.3))
    colours = [_colour(panel, line.name, place) for place, line in enumerate(lines)]
    times = [[time / DAY for time in line.times] for line in lines]
    if stacking == "none":
        for line, moments, colour in zip(lines, times, colours, strict=True):
            axes.plot(moments, line.values, color=colour, linewidth=1.5, linestyle=_style(panel, line.name))
            if len(lines) == 1:
                axes.fill_between(moments, line.values, color=colour, alpha=0.1, linewidth=0)
    else:
        axes.stackplot(times[0], *[line.values for line in lines], colors=colours, alpha=0.75, linewidth=0)
    _finish(axes, custom, unit, defaults["thresholds"], span)
    _legend(page, Box(box.left, box.top + box.height - legend, box.width, legend), listed, lines, colours, unit)


def draw_bars(page: Page, box: Box, panel: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """One bar for each series, to the left of 0 where it is below."""
    defaults = panel["fieldConfig"]["defaults"]
    lines = lines[:10]
    texts = [_whole_or_not(line.last, defaults) for line in lines]
    names = min(box.width * 0.42, max(page.width_of(line.name, 8.5) for line in lines) + 0.1)
    figures = max(page.width_of(text, 9, "bold") for text in texts) + 0.1
    room = box.inside(left=names, right=figures)
    low, high = min(0.0, *(line.last for line in lines)), max(0.0, *(line.last for line in lines))
    scale = room.width / ((high - low) or 1)
    zero = room.left - low * scale
    tall = min(0.42, box.height / len(lines))
    for place, (line, text) in enumerate(zip(lines, texts, strict=True)):
        top = box.top + 0.05 + place * tall
        colour = _by_threshold(line.last, defaults["thresholds"])
        page.text(box.left, top + tall / 2, page.cut(line.name, names - 0.05, 8.5), 8.5)
        page.bar(Box(room.left, top + tall * 0.18, room.width, tall * 0.64), GRID, 0.6)
        start = zero + min(0.0, line.last) * scale
        page.bar(Box(start, top + tall * 0.18, max(abs(line.last) * scale, 0.015), tall * 0.64), colour)
        page.text(box.left + box.width, top + tall / 2, text, 9, colour, ha="right", weight="bold")
    if low < 0:
        page.bar(Box(zero - 0.005, box.top, 0.01, tall * len(lines) + 0.1), INK)


def draw_table(page: Page, box: Box, table: Table) -> None:
    """Names to the left, numbers to the right of their columns."""
    widths = [
        max(page.width_of(text, 9, "bold") for text in (heading, *(row[place][0] for row in table.rows)))
        for place, heading in enumerate(table.headings)
    ]
    stretch = box.width / (sum(widths) + 0.25 * len(widths))
    lefts = [box.left + stretch * (sum(widths[:place]) + 0.25 * place) for place in range(len(widths))]
    tall = 0.25
    for place, heading in enumerate(table.headings):
        heading = page.cut(heading, widths[place] * stretch, 8.5, "bold")
        page.text(lefts[place], box.top + tall / 2, heading, 8.5, FAINT, weight="bold")
    fits = int(box.height / tall) - 1
    for number, row in enumerate(table.rows[:fits], start=1):
        page.bar(Box(box.left, box.top + number * tall, box.width, 0.008), GRID)
        for place, (text, colour) in enumerate(row):
            text = page.cut(text, widths[place] * stretch, 9)
            page.text(lefts[place], box.top + (number + 0.5) * tall, text, 9, HEX.get(colour, INK))


def _listed(lines: Sequence[Line]) -> list[int]:
    """Which lines the legend has room for: those that end highest."""
    if len(lines) <= LEGEND_ROWS:
        return list(range(len(lines)))
    ranked = sorted(range(len(lines)), key=lambda place: -_or_zero(lines[place].last))
    return sorted(ranked[: LEGEND_ROWS - 1])


def _legend(
    page: Page, box: Box, listed: Sequence[int], lines: Sequence[Line], colours: Sequence[str], unit: str
) -> None:
    reduced: Sequence[tuple[str, Callable[[list[float]], float]]] = (
        ("min", min),
        ("mean", lambda values: sum(values) / len(values)),
        ("last", lambda values: values[-1]),
    )
    column = min(0.95, box.width * 0.19)
    rights = [box.left + box.width - column * place for place in (2, 1, 0)]
    for right, (name, _) in zip(rights, reduced, strict=True):
        page.text(right, box.top + ROW / 2, name, 7.5, FAINT, ha="right")
    for row, place in enumerate(listed, start=1):
        line, middle = lines[place], box.top + (row + 0.5) * ROW
        page.bar(Box(box.left, middle - 0.02, 0.16, 0.04), colours[place])
        page.text(box.left + 0.22, middle, page.cut(line.name, box.width - 3 * column - 0.1, 7.5), 7.5)
        values = [value for value in line.values if not math.isnan(value)] or [math.nan]
        for right, (_, reduce) in zip(rights, reduced, strict=True):
            page.text(right, middle, shown(reduce(values), unit), 7.5, ha="right")
    if len(lines) > len(listed):
        more = f"and {len(lines) - len(listed)} more"
        page.text(box.left + 0.22, box.top + (len(listed) + 1.5) * ROW, more, 7.5, FAINT)


def _finish(
    axes: Axes, custom: Mapping[str, Any], unit: str, thresholds: Mapping[str, Any], span: tuple[float, float]
) -> None:
    axes.set_xlim(span[0] / DAY, span[1] / DAY)
    low, high = axes.get_ylim()
    low, high = min(low, custom.get("axisSoftMin", low)), max(high, custom.get("axisSoftMax", high))
    if "axisSoftMin" in custom and low > -0.05 * high:
        low = min(0.0, custom["axisSoftMin"])
    if custom["thresholdsStyle"]["mode"] == "dashed":
        for step in thresholds["steps"][1:]:
            if low <= step["value"] <= high * 1.5:
                high = max(high, step["value"] * 1.05)
                axes.axhline(step["value"], color=HEX[step["color"]], linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(low, high if high > low else low + 1)
    by = scale(max(abs(low), abs(high)), unit)
    steps = [1, 2, 3, 5, 10] if unit == "s" else [1, 2, 2.5, 5, 10]
    ticks = MaxNLocator(4, steps=steps).tick_values(low / by, high / by)
    axes.yaxis.set_major_locator(FixedLocator([tick * by for tick in ticks if low <= tick * by <= high * 1.001]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit).replace("$", r"\$")))
    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.tick_params(labelsize=7.5, colors=FAINT, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(EDGE)


def _spark(axes: Axes, line: Line, colour: str) -> None:
    axes.plot(line.times, line.values, color=colour, linewidth=1.2)
    axes.fill_between(line.times, line.values, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(bottom=min(0.0, *(_or_zero(value) for value in line.values)))
    axes.axis("off")


def _as_shares(lines: Sequence[Line]) -> list[Line]:
    totals = [sum(map(_or_zero, values)) for values in zip(*(line.values for line in lines), strict=True)]
    return [
        Line(
            name=line.name,
            times=line.times,
            values=tuple(
                _or_zero(value) / total if total else 0.0 for value, total in zip(line.values, totals, strict=True)
            ),
        )
        for line in lines
    ]


def _by_threshold(value: float, thresholds: Mapping[str, Any]) -> str:
    colour = thresholds["steps"][0]["color"]
    for step in thresholds["steps"][1:]:
        if value >= step["value"]:
            colour = step["color"]
    return HEX[colour]


def _colour(panel: Mapping[str, Any], name: str, place: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name and override["properties"][0]["id"] == "color":
            return HEX[override["properties"][0]["value"]["fixedColor"]]
    return PALETTE[place % len(PALETTE)]


def _style(panel: Mapping[str, Any], name: str) -> Any:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["id"] == "byRegexp" and re.fullmatch(override["matcher"]["options"], name):
            return (0, (4, 3))
    return "solid"


def _whole_or_not(value: float, defaults: Mapping[str, Any]) -> str:
    return shown(float(round(value)) if defaults.get("decimals") == 0 else value, defaults["unit"])


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
