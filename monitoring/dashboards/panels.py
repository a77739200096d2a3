"""The kinds of panels that the boards are made of: big numbers, lines, bars, tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.variables import SOURCE

Panel = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel
Kind = TypeVar("Kind", stat.Panel, timeseries.Panel, bargauge.Panel, table.Panel)

Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first has no lower end."""

PLAIN: Steps = ((None, "blue"),)
GAIN: Steps = ((None, "red"), (0, "green"))
"""Below 0 is a loss."""

HUES: Mapping[str, Mapping[str, str]] = {
    "basis": {"measured": "green", "modelled": "blue"},
    "fate": {"retained": "green", "skipped": "blue", "merged": "purple", "dropped": "orange"},
    "outcome": {
        "ok": "green",
        "error": "red",
        "refused": "orange",
        "limited": "yellow",
        "left": "purple",
        "failed": "red",
    },
    "state": {
        "ok": "green",
        "error": "red",
        "waiting": "blue",
        "busy": "green",
        "idle": "orange",
        "wanted": "purple",
        "running": "green",
        "starting": "blue",
        "other": "red",
    },
    "status": {"200": "green", "429": "yellow", "499": "purple", "500": "red", "503": "dark-red"},
}
"""Label -> value -> colour, the same on every board."""
SPENT = "spent, {{basis}}"
SPENT_HUE = "orange"
"""What was spent, beside what all tokens would have taken."""


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and what its series are called: text, with labels as `{{label}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of numbers in a table, one row for each combination of the labels that its expression keeps."""

    name: str
    expr: str
    unit: str
    says: Mapping[str, tuple[str, str]] | None = None
    """Value -> text and colour to show instead."""


def big(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    trend: bool = False,
    width: int = 4,
    height: int = 5,
    whole: bool = False,
    nothing: str = "no data",
    names: bool = False,
    opens: str = "",
) -> stat.Panel:
    """What matters now, in large.

    Args:
        trend: draw how it came to this value.
        whole: it is a count; growth that Prometheus estimates has decimals.
        nothing: what to say where there is no answer.
        names: show what the series are called, and not their values.
        opens: the uid of the board that says more.
    """
    panel = stat.Panel().no_value(nothing).height(height).color_mode(looks.BigValueColorMode.VALUE)
    panel.graph_mode(looks.BigValueGraphMode.AREA if trend else looks.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    mode = looks.BigValueTextMode.NAME if names else looks.BigValueTextMode.AUTO
    panel.text_mode(mode).color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    if whole:
        panel.decimals(0)
    if opens:
        link = dashboard.DashboardLink("More").type(DashboardLinkType.LINK).url(f"/d/{opens}")
        panel.links([link.include_vars(True).keep_time(True)])
    return _framed(panel, title, description, unit, width, steps).targets(_targets(queries, instant=not trend))


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    stacked: looks.StackingMode = looks.StackingMode.NONE,
    high: float | None = None,
    dashed: str = "",
    width: int = 8,
    height: int = 9,
) -> timeseries.Panel:
    """How something went, with 0 in sight, and below it where values are.

    Args:
        steps: those beyond the first are drawn as dashed lines.
        high: at least so much is in sight.
        dashed: lines whose names match this pattern are aims, not values.
    """
    panel = (
        timeseries.Panel()
        .height(height)
        .axis_soft_min(0)
        .no_value("no data")
        .line_width(2)
        .show_points(looks.VisibilityMode.NEVER)
    )
    panel.fill_opacity(10 if stacked == looks.StackingMode.NONE else 45)
    panel.stacking(common.StackingConfig().mode(stacked).group("A"))
    if high is not None:
        panel.axis_soft_max(high)
    style = looks.GraphThresholdsStyleMode.DASHED if len(steps) > 1 else looks.GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    legend = common.VizLegendOptions().display_mode(looks.LegendDisplayMode.TABLE).show_legend(True)
    panel.legend(legend.placement(looks.LegendPlacement.BOTTOM).calcs(["min", "mean", "lastNotNull"]))
    tooltip = common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
    panel.tooltip(tooltip).color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    for name, hue in _hues(queries).items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": hue})])
    if dashed:
        panel.override_by_regexp(dashed, [DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})])
    return _framed(panel, title, description, unit, width, steps).targets(_targets(queries, instant=False))


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    width: int = 8,
    height: int = 9,
    whole: bool = False,
) -> bargauge.Panel:
    """One number for each of several things, one below the other; `whole`: counts."""
    panel = bargauge.Panel().height(height).no_value("no data").orientation(looks.VizOrientation.HORIZONTAL)
    panel.display_mode(looks.BarGaugeDisplayMode.BASIC).value_mode(looks.BarGaugeValueMode.TEXT)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    if whole:
        panel.decimals(0)
    return _framed(panel, title, description, unit, width, steps).targets(_targets(queries, instant=True))


def grid(
    title: str,
    description: str,
    *columns: Column,
    labels: Mapping[str, str],
    width: int = 24,
    height: int = 9,
) -> table.Panel:
    """A table: `labels` are the columns of names, label -> heading, and `columns` those of numbers."""
    panel = table.Panel().height(height).no_value("no data").show_header(True).align(looks.FieldTextAlignment.AUTO)
    titles = {f"Value #{letter}": column.name for letter, column in zip(ascii_uppercase, columns, strict=False)}
    # One instant answer has no letter: Grafana calls its only column of numbers `Value`.
    titles = {"Value": columns[0].name} if len(columns) == 1 else titles
    order = {name: place for place, name in enumerate([*labels, *titles])}
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": {**labels, **titles}}
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    for column in columns:
        properties = [DynamicConfigValue("unit", column.unit)]
        if column.says:
            shown = {value: ValueMappingResult(text=text, color=hue) for value, (text, hue) in column.says.items()}
            properties.append(DynamicConfigValue("mappings", [ValueMap(options=shown)]))
            properties.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        panel.override_by_name(column.name, properties)
    queries = [Query(column.expr) for column in columns]
    panel.targets(_targets(queries, instant=True, form=PromQueryFormat.TABLE))
    return _framed(panel, title, description, "short", width, PLAIN)


def _hues(queries: Sequence[Query]) -> dict[str, str]:
    """What series will be called -> their colour, for those that have one."""
    found: dict[str, str] = {}
    for legend in (query.legend for query in queries):
        for label, hues in HUES.items():
            if re.findall(r"\{\{(\w+)\}\}", legend) == [label]:
                names = {value: legend.replace(f"{{{{{label}}}}}", value) for value in hues}
                found |= {names[value]: SPENT_HUE if legend == SPENT else hue for value, hue in hues.items()}
    return found


def _framed(panel: Kind, title: str, description: str, unit: str, width: int, steps: Steps) -> Kind:
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    thresholds.steps([Threshold(value=value, color=colour) for value, colour in steps])
    panel.title(title).description(description).datasource(SOURCE).unit(unit).span(width).thresholds(thresholds)
    return panel


def _targets(
    queries: Sequence[Query], *, instant: bool, form: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> list[Any]:
    found = []
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr).format(form)
        found.append((target.instant() if instant else target.range()).legend_format(query.legend or "__auto"))
    return found
