"""A board: rows of panels under a uid, with the variables that they ask for and links to the other boards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType

from monitoring.dashboards.panels import Panel
from monitoring.dashboards.variables import variables_for

TAG = "skipvision"
"""What the boards find each other by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Panels under one heading, laid out from left to right on 24 columns."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """What one page of Grafana shows."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    hours: int = 6
    """How far back it looks when it is opened."""


def text_of(board: Board) -> str:
    """The board as Grafana reads it."""
    shown = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time(f"now-{board.hours}h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_other_boards())
    )
    for row in board.rows:
        shown.with_row(builders.Row(row.title))
        for panel in row.panels:
            shown.with_panel(panel)
    built = shown.build()
    for number, placed in enumerate(built.panels or [], start=1):
        placed.id_val = number
    plain = json.loads(json.dumps(built, cls=JSONEncoder))
    shown.variables(variables_for(_expressions(plain)))
    return json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _other_boards() -> builders.DashboardLink:
    link = builders.DashboardLink("skipvision").type(DashboardLinkType.DASHBOARDS).tags([TAG]).icon("dashboard")
    return link.as_dropdown(False).include_vars(True).keep_time(True)


def _expressions(plain: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in plain["panels"] for target in panel.get("targets", [])]
