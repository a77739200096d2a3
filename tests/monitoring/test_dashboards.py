"""The boards are what the code says, ask only for what is published, and never mix what was measured and modelled."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import GENERATED
from monitoring.dashboards.boards import BOARDS, generated_texts
from monitoring.expressions import (
    all_expressions,
    expressions_of,
    filled_in,
    panels_of,
    read_boards,
    variables_in,
    variables_of,
)
from monitoring.promql import Check, metric_named, selectors
from skipvision.metrics import CATALOGUE

BY_UID = {board["uid"]: board for board in read_boards()}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRAFANA_S_OWN = {"__range", "__rate_interval"}


def board_problems(board: dict[str, Any]) -> list[str]:
    """What is wrong with a board, its expressions aside."""
    found = []
    for panel in panels_of(board):
        said = f"{board['uid']}, {panel.get('title')!r}: "
        defaults = panel["fieldConfig"]["defaults"]
        found += [f"{said}no {part}" for part in ("title", "description") if not panel.get(part)]
        found += [f"{said}no unit"] * (not defaults.get("unit"))
        found += [f"{said}no text for no answer"] * (not defaults.get("noValue"))
        found += [f"{said}the first colour has a lower end"] * (defaults["thresholds"]["steps"][0]["value"] is not None)
        places = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        found += [f"{said}another data source"] * any(place != SOURCE for place in places)
    found += [f"two panels are called {title}" for title in _twice(panel["title"] for panel in panels_of(board))]
    found += [f"two panels have the id {number}" for number in _twice(panel["id"] for panel in board["panels"])]
    found += [
        f"{one['title']} lies on {other['title']}"
        for one, other in combinations(board["panels"], 2)
        if _overlap(one, other)
    ]
    found += [
        f"{panel['title']} is cut off"
        for panel in board["panels"]
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24
    ]
    return found + variable_problems(board)


def variable_problems(board: dict[str, Any]) -> list[str]:
    """Variables that are used and not declared, or declared and not used."""
    declared = {variable["name"] for variable in board["templating"]["list"]}
    texts = [each.expr for each in (*variables_of(board), *expressions_of(board))]
    used = {"datasource"}.union(*map(variables_in, texts)) - GRAFANA_S_OWN
    return [f"${name} is not declared" for name in used - declared] + [
        f"${name} is not used" for name in declared - used
    ]


def expression_problems(expr: str, legend: str = "") -> list[str]:
    """What is wrong with an expression of a board, as it stands there."""
    check = Check(filled_in(expr, rate_interval="77s", range_seconds=4321), window=timedelta(seconds=77))
    gone = set(re.findall(r"\{\{(\w+)\}\}", legend)) - check.labels
    windows = set(re.findall(r"increase\([^[]*\[([^]]*)\]", expr)) - {"$__range", "1d"}
    return [
        *check.problems,
        *(f"the legend names {label}, which is gone" for label in sorted(gone)),
        *(f"an increase over {window}" for window in sorted(windows)),
    ]


def _twice(values: Any) -> list[Any]:
    return [value for value, times in Counter(values).items() if times > 1]


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    a, b = one["gridPos"], other["gridPos"]
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def test_the_generated_boards_are_what_the_code_gives():
    found = {path.stem: path.read_text() for path in GENERATED.glob("*.json")}
    assert found == generated_texts(), "run: python -m monitoring.dashboards"


def test_the_boards_keep_the_addresses_that_people_have_saved():
    assert [board.uid for board in BOARDS] == [
        "skipvision-overview",
        "skipvision-service",
        "skipvision-jobs",
        "skipvision-skipping",
        "skipvision-engine",
        "skipvision-cost",
    ]


@pytest.mark.parametrize("uid", BY_UID)
def test_a_board_that_is_read_and_written_again_is_the_same(uid):
    register_default_plugins()
    text = (GENERATED / f"{uid}.json").read_text()
    again = json.dumps(Dashboard.from_json(json.loads(text)), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
    assert again == text


@pytest.mark.parametrize("uid", BY_UID)
def test_a_board_is_made_for_grafana_11_and_fits_a_config_map(uid):
    assert BY_UID[uid]["schemaVersion"] == 41
    assert (GENERATED / f"{uid}.json").stat().st_size < 1 << 20


@pytest.mark.parametrize("uid", BY_UID)
def test_every_panel_says_what_it_shows_and_in_which_unit(uid):
    assert board_problems(BY_UID[uid]) == []


@pytest.mark.parametrize("uid", BY_UID)
def test_every_board_leads_to_the_others(uid):
    (link,) = BY_UID[uid]["links"]
    assert link["tags"] == BY_UID[uid]["tags"] == ["skipvision"]
    assert (link["keepTime"], link["includeVars"]) == (True, True)


def test_links_of_panels_lead_to_boards_that_there_are():
    urls = {link["url"] for board in BY_UID.values() for panel in panels_of(board) for link in panel.get("links", [])}
    assert urls
    assert {url.removeprefix("/d/") for url in urls} <= set(BY_UID)


def test_variables_take_several_values_or_all():
    for board in BY_UID.values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
                assert variable["description"]


@pytest.mark.parametrize("each", all_expressions(), ids=lambda each: f"{each.board}: {each.panel}, {each.ref_id}")
def test_every_expression_asks_for_what_is_published_and_keeps_what_it_names(each):
    assert expression_problems(each.expr, each.legend) == []


def test_every_metric_of_the_catalogue_is_on_some_board():
    asked = [selector for each in all_expressions() for selector in selectors(filled_in(each.expr))]
    shown = {metric.name for selector in asked if (metric := metric_named(selector.name or ""))}
    assert set(CATALOGUE) - shown == set()


def test_savings_come_first_and_what_was_measured_comes_before_what_was_modelled():
    first, second, third = panels_of(BY_UID["skipvision-overview"])[:3]
    assert [panel["title"] for panel in (first, second, third)] == [
        "Money saved",
        "Share of the cost saved",
        "Answers that changed",
    ]
    for panel in (first, second):
        baselines = [
            re.search(r'baseline_cost_usd_total\{[^}]*basis="(\w+)"', each["expr"])[1] for each in panel["targets"]
        ]
        assert baselines == ["measured", "modelled"]
        assert [each["legendFormat"] for each in panel["targets"]] == ["{{basis}}"] * 2


def test_wherever_a_panel_shows_both_bases_its_legend_says_which_is_which():
    for board in BY_UID.values():
        for panel in panels_of(board):
            text = json.dumps([target["expr"] for target in panel["targets"]])
            if "measured" in text and "modelled" in text and panel["type"] != "table":
                assert all("{{basis}}" in target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_losses_are_shown_and_in_red():
    savings = [panel for board in BY_UID.values() for panel in panels_of(board) if "saved" in panel["title"].lower()]
    assert len(savings) > 5
    for panel in savings:
        defaults = panel["fieldConfig"]["defaults"]
        assert "min" not in defaults, panel["title"]
        assert [step["color"] for step in defaults["thresholds"]["steps"]] == ["red", "green"], panel["title"]
        assert "clamp" not in json.dumps(panel["targets"])


GOOD = 'sum by (model) (rate(skipvision_images_total{cluster=~"$cluster", outcome="ok"}[$__rate_interval]))'


def test_the_expression_that_is_damaged_below_is_sound():
    assert expression_problems(GOOD, "{{model}}") == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("images_total", "image_total", "is not published"),
        ("outcome=", "outcom=", "has no label outcom"),
        ('"ok"', '"okay"', "knows no outcome=okay"),
        ('="ok"', '=~"ok|fine"', "knows no outcome=fine"),
        ("by (model)", "by (modell)", "no label modell here"),
        ("$__rate_interval", "5m", r"not over \$__rate_interval"),
        ("rate(", "delta(", "only under rate or increase"),
        ("images_total", "engines", "never under rate or increase"),
        ("by (model)", "by (skip)", "the legend names model"),
        ("))", ")", "does not parse"),
    ],
)
def test_a_damaged_expression_is_caught(before, after, says):
    assert before in GOOD
    assert re.search(says, " ".join(expression_problems(GOOD.replace(before, after), "{{model}}")))


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("sum(increase(skipvision_baseline_cost_usd_total[$__range]))", "over what is measured and what is modelled"),
        ("sum by (basis) (increase(skipvision_baseline_cost_usd_total[3h]))", "an increase over 3h"),
        (
            'sum(rate(skipvision_baseline_cost_usd_total{basis="modelled"}[$__rate_interval]) - ignoring (basis) '
            'group_left () rate(skipvision_cost_usd_total{basis="measured"}[$__rate_interval]))',
            "meet in one sum",
        ),
        (
            'sum(rate(skipvision_cost_usd_total{basis="measured"}[$__rate_interval])) '
            '+ sum(rate(skipvision_baseline_cost_usd_total{basis="modelled"}[$__rate_interval]))',
            "meet in one sum",
        ),
        ("skipvision_job_progress_ratio / skipvision_engines", "two sides that never meet"),
        ("skipvision_requests_running / on (model) skipvision_engines", "no label model here"),
        ('sum(rate(skipvision_request_seconds_bucket{le="11"}[$__rate_interval]))', "no bucket up to 11"),
        ("sum(rate(skipvision_request_seconds[$__rate_interval]))", "is not published"),
        ("sum(rate(skipvision_images_total_sum[$__rate_interval]))", "is not published"),
        (
            "histogram_quantile(0.9, sum by (model) (rate(skipvision_request_seconds_bucket[$__rate_interval])))",
            "needs the label le",
        ),
    ],
)
def test_an_expression_that_cannot_mean_what_it_says_is_caught(expr, says):
    assert re.search(says, " ".join(expression_problems(expr)))


def _undescribed(board):
    panels_of(board)[0]["description"] = ""


def _without_unit(board):
    del panels_of(board)[0]["fieldConfig"]["defaults"]["unit"]


def _fixed_source(board):
    panels_of(board)[0]["targets"][0]["datasource"]["uid"] = "prom-1"


def _same_title(board):
    panels_of(board)[0]["title"] = panels_of(board)[1]["title"]


def _one_on_another(board):
    panels_of(board)[1]["gridPos"] = panels_of(board)[0]["gridPos"]


def _too_wide(board):
    panels_of(board)[-1]["gridPos"]["x"] = 23


def _unknown_variable(board):
    panels_of(board)[0]["targets"][0]["expr"] += ' + absent(skipvision_engines{model="$modle"})'


def _unused_variable(board):
    board["templating"]["list"].append({"type": "textbox", "name": "spare"})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_undescribed, "no description"),
        (_without_unit, "no unit"),
        (_fixed_source, "another data source"),
        (_same_title, "two panels are called"),
        (_one_on_another, "lies on"),
        (_too_wide, "is cut off"),
        (_unknown_variable, r"\$modle is not declared"),
        (_unused_variable, r"\$spare is not used"),
    ],
)
def test_a_damaged_board_is_caught(damage: Callable[[dict[str, Any]], None], says: str):
    board = copy.deepcopy(BY_UID["skipvision-overview"])
    damage(board)
    assert re.search(says, " ".join(board_problems(board)))
