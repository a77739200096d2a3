"""What the boards ask a Prometheus: every expression, as it stands and with Grafana's variables filled in.

Read from the generated boards alone, so that what is checked is what Grafana gets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENERATED = Path(__file__).parent / "dashboards" / "generated"

Board = Mapping[str, Any]
"""As Grafana reads it."""

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """One thing that a board asks."""

    board: str
    """Its uid."""
    panel: str
    """The panel's title; of a variable's values, `$` and its name."""
    ref_id: str
    expr: str
    legend: str = ""
    instant: bool = False
    """Asked of the end of the time shown, not of all of it."""


def read_boards(folder: Path = GENERATED) -> list[Board]:
    """The generated boards, by uid."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def panels_of(board: Board) -> list[Mapping[str, Any]]:
    """The panels of a board that show something: all but the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions_of(board: Board) -> Iterator[Expression]:
    """What the panels of a board ask."""
    for panel in panels_of(board):
        for target in panel["targets"]:
            yield Expression(
                board=board["uid"],
                panel=panel["title"],
                ref_id=target["refId"],
                expr=target["expr"],
                legend=target.get("legendFormat", ""),
                instant=target.get("instant", False),
            )


def variables_of(board: Board) -> Iterator[Expression]:
    """What the variables of a board ask: `label_values(series, label)`, as an expression that has those values."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = _label_values(variable["query"])
            expr = f"group by ({label}) ({series})"
            yield Expression(
                board=board["uid"], panel=f"${variable['name']}", ref_id=variable["name"], expr=expr, instant=True
            )


def all_expressions(folder: Path = GENERATED) -> list[Expression]:
    """What all boards ask, the variables' values included."""
    return [each for board in read_boards(folder) for each in (*variables_of(board), *expressions_of(board))]


def variables_in(text: str) -> set[str]:
    """The names of the variables in an expression, Grafana's own included."""
    return set(_VARIABLE.findall(text))


def filled_in(
    expr: str, *, range_seconds: int = 3600, rate_interval: str = "1m", chosen: Mapping[str, str] | None = None
) -> str:
    """An expression that a Prometheus understands.

    Args:
        range_seconds: how much time the board shows.
        rate_interval: what rates are taken over; at least four times as long as the pause between two scrapes.
        chosen: variable -> the pattern of what is chosen. What it does not name is All.
    """
    own = {"__range": f"{range_seconds}s", "__range_s": str(range_seconds), "__rate_interval": rate_interval}
    values = {**own, **(chosen or {})}
    return _VARIABLE.sub(lambda found: values.get(found[1], ".*"), expr)


def _label_values(query: str) -> tuple[str, str]:
    found = re.fullmatch(r"label_values\((?P<series>.+), (?P<label>\w+)\)", query)
    assert found, query
    return found["series"], found["label"]
