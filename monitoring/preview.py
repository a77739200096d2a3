"""`python -m monitoring.preview` draws every board from a live Prometheus, one picture each, without Grafana.

A preview shows what the boards ask and what they are answered, with the same rows, titles and units. It is no picture
of Grafana itself.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.drawing import (
    Box,
    Line,
    Page,
    Table,
    draw_bars,
    draw_big,
    draw_frame,
    draw_lines,
    draw_nothing,
    draw_table,
)
from monitoring.expressions import Board, filled_in, read_boards
from monitoring.prometheus import Prometheus, Series
from monitoring.units import shown, split

WIDTH, MARGIN, GAP, UNIT, HEAD = 16.0, 0.2, 0.08, 0.36, 0.75
"""Of a page and what is between its panels, in inches; the height of one line of Grafana's grid; the page's title."""
POINTS = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The time that is shown, in seconds."""

    end: float
    seconds: int
    rate_interval: str

    @property
    def start(self) -> float:
        return self.end - self.seconds

    @property
    def step(self) -> float:
        return max(1.0, self.seconds / POINTS)

    def fill(self, expr: str) -> str:
        return filled_in(expr, range_seconds=self.seconds, rate_interval=self.rate_interval)


def draw_board(board: Board, prometheus: Prometheus, window: Window) -> Page:
    """One page with all the panels of a board."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    page = Page(WIDTH, HEAD + bottom * UNIT + MARGIN)
    page.text(MARGIN, HEAD * 0.36, board["title"], 15, weight="bold")
    page.text(MARGIN, HEAD * 0.75, board["description"], 9.5, "#57606a")
    said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(window.end))
    page.text(WIDTH - MARGIN, HEAD * 0.36, f"{shown(window.seconds, 's')} to {said}", 9.5, "#57606a", ha="right")
    for panel in board["panels"]:
        _draw(page, panel, prometheus, window)
    return page


def _draw(page: Page, panel: Mapping[str, Any], prometheus: Prometheus, window: Window) -> None:
    place, column = panel["gridPos"], (WIDTH - 2 * MARGIN) / 24
    box = Box(MARGIN + place["x"] * column, HEAD + place["y"] * UNIT, place["w"] * column, place["h"] * UNIT)
    if panel["type"] == "row":
        page.text(box.left, box.top + box.height / 2 + 0.03, panel["title"], 11, "#24292f", weight="bold")
        return
    defaults = panel["fieldConfig"]["defaults"]
    drawn = panel["type"] == "timeseries" and defaults["custom"]["stacking"]["mode"] != "percent"
    said_once = split(defaults["unit"])[1] if drawn else ""
    inner = draw_frame(page, box.inside(right=GAP, bottom=GAP), panel["title"], said_once)
    answers = [(target, _answer(target, prometheus, window)) for target in panel["targets"]]
    lines = [_line(target, series, window) for target, answer in answers for series in answer]
    lines = [line for line in lines if not math.isnan(line.last)]
    if not lines:
        draw_nothing(page, inner, defaults["noValue"])
    elif panel["type"] == "stat":
        draw_big(page, inner, panel, lines)
    elif panel["type"] == "timeseries":
        draw_lines(page, inner, panel, lines, (window.start, window.end))
    elif panel["type"] == "bargauge":
        draw_bars(page, inner, panel, lines)
    else:
        draw_table(page, inner, table_of(panel, [answer for _, answer in answers]))


def _answer(target: Mapping[str, Any], prometheus: Prometheus, window: Window) -> list[Series]:
    expr = window.fill(target["expr"])
    if target.get("instant"):
        answer = prometheus.at(expr, window.end)
    else:
        answer = prometheus.over(expr, window.start, window.end, window.step)
    if expr.startswith("topk"):
        return answer  # in the order that was asked for
    return sorted(answer, key=lambda series: sorted(series.labels.items()))


def _line(target: Mapping[str, Any], series: Series, window: Window) -> Line:
    if target.get("instant"):
        return Line(name=name_of(target["legendFormat"], series), times=series.times, values=series.values)
    # On one grid, with gaps where there was no answer, so that lines can be stacked.
    known = {
        round((moment - window.start) / window.step): value
        for moment, value in zip(series.times, series.values, strict=True)
    }
    steps = range(int(window.seconds / window.step) + 1)
    return Line(
        name=name_of(target["legendFormat"], series),
        times=tuple(window.start + step * window.step for step in steps),
        values=tuple(known.get(step, math.nan) for step in steps),
    )


def name_of(legend: str, series: Series) -> str:
    """What a legend calls a series."""
    if legend == "__auto":
        return ", ".join(series.labels.values())
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), legend).strip()


def table_of(panel: Mapping[str, Any], answers: Sequence[Sequence[Series]]) -> Table:
    """The answers side by side, one row for each combination of labels, as the panel's transformations say."""
    organize = next(each for each in panel["transformations"] if each["id"] == "organize")["options"]
    names: dict[str, str] = organize["renameByName"]
    labels = [name for name in names if not name.startswith("Value")]
    columns = [name for field, name in names.items() if field.startswith("Value")]
    cells: dict[tuple[str, ...], dict[str, float]] = {}
    for column, answer in zip(columns, answers, strict=True):
        for series in answer:
            key = tuple(series.labels.get(label, "") for label in labels)
            cells.setdefault(key, {})[column] = series.values[-1]
    overrides = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"]["overrides"]}
    rows = [
        [*((text, "text") for text in key), *(_cell(found.get(column), overrides[column]) for column in columns)]
        for key, found in sorted(cells.items())
    ]
    return Table(headings=[names[label] for label in labels] + columns, rows=rows)


def _cell(value: float | None, properties: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if value is None:
        return "–", "text"
    settings = {each["id"]: each["value"] for each in properties}
    for mapping in settings.get("mappings", []):
        if meant := mapping["options"].get(f"{value:g}"):
            return meant["text"], meant["color"]
    return shown(value, settings["unit"]), "text"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m monitoring.preview", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="address of the server")
    parser.add_argument("--minutes", type=float, default=0.0, help="how far back to look, added to --hours")
    parser.add_argument("--hours", type=float, default=0.0, help="1 where neither is named")
    parser.add_argument("--rate-interval", default="1m", help="what rates are taken over: four scrapes or more")
    parser.add_argument("--output", type=Path, default=Path("docs/images/dashboards"), help="folder for the pictures")
    parser.add_argument("--board", action="append", help="draw only the board of this uid; may be repeated")
    asked = parser.parse_args(arguments)
    seconds = int((asked.hours * 60 + asked.minutes) * 60) or 3600
    window = Window(end=time.time(), seconds=seconds, rate_interval=asked.rate_interval)
    asked.output.mkdir(parents=True, exist_ok=True)
    for board in read_boards():
        if not asked.board or board["uid"] in asked.board:
            path = asked.output / f"{board['uid']}.png"
            draw_board(board, Prometheus(asked.prometheus), window).figure.savefig(path)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
