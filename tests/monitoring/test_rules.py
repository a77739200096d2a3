"""Rules and alerts hold: Prometheus reads them, their tests pass, and they ask for numbers that there are."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import yaml
from promql_parser import MatrixSelector, display_duration

from service.auth import TenantConfig
from service.config import ModelConfig, ServiceConfig
from skipvision.config import JobConfig
from skipvision.metrics import CATALOGUE, FIRST_TOKEN_SECONDS
from skipvision.metrics.labels import ERROR_CODES, SERVICE_CODES
from skipvision.prices import PriceList
from tests.monitoring.problems import ADDED, bounds_of, problems
from tests.monitoring.promtool import promtool
from tests.monitoring.rule_files import ALERTS, ALL, RECORDED, RECORDING, ROOT, TESTS, TOLD, names, nodes, unit_tests

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()

ALWAYS = {"SkipvisionWatchdog"}
"""Alerts that are never silent."""


def test_prometheus_finds_nothing_wrong_with_the_files():
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", RECORDING, ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_tests_of_the_rules_pass(file):
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_seen_firing_and_seen_silent():
    cases = [case for test in unit_tests() for case in test.get("alert_rule_test", ())]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == set(TOLD)
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == set(TOLD) - ALWAYS


def test_every_recorded_number_is_seen_with_a_value_and_with_the_labels_of_its_level():
    seen = set()
    for test in unit_tests():
        for case in test.get("promql_expr_test", ()):
            for sample in case.get("exp_samples", ()):
                [name] = names(case["expr"])
                labels = set(re.findall(r"(\w+)=", sample["labels"])) - ADDED
                level = name.partition(":")[0]
                assert set(level.split("_")) == (labels or {"cluster"}), name
                seen.add(name)
    assert seen == set(RECORDED)


@pytest.mark.parametrize("name", ALL)
def test_a_rule_reads_only_numbers_that_there_are_by_labels_that_they_have(name):
    for problem in problems(ALL[name]["expr"]):
        pytest.fail(problem)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("skipvision_row_total", "skipvision_row_total is published by nothing"),
        ("skipvision_rows_total_bucket", "skipvision_rows_total_bucket is published by nothing"),
        ("skipvision_first_token_seconds", "skipvision_first_token_seconds is published by nothing"),
        ('skipvision_rows_total{job_name="x"}', "skipvision_rows_total has no label job_name"),
        ('skipvision_rows_total{outcome="fine"}', "outcome of skipvision_rows_total is never fine"),
        ('skipvision_requests_total{status=~"200|6.."}', "status of skipvision_requests_total is never 6.."),
        ('skipvision_first_token_seconds_bucket{le="1"}', "le of skipvision_first_token_seconds_bucket is never 1"),
        ("sum by (cluster, tenant) (skipvision_rows_total)", "nothing that is added up has a label tenant"),
        ("sum by (model) (skipvision_rows_total)", "sum forgets the cluster"),
        ("sum (skipvision_rows_total)", "sum forgets the cluster"),
        ("sum without (cluster) (skipvision_rows_total)", "sum forgets the cluster"),
        ("up * on (job) up", "* matches across clusters"),
        ("up * ignoring (cluster) up", "* matches across clusters"),
    ],
)
def test_what_is_wrong_with_an_expression_is_found(expression, says):
    assert list(problems(expression)) == [says]


def test_the_bound_for_slow_first_tokens_is_one_of_the_buckets():
    assert "1.0" in bounds_of(FIRST_TOKEN_SECONDS.name)


@pytest.mark.parametrize("name", RECORDED)
def test_a_name_says_over_how_long_its_number_is_taken(name):
    expression = RECORDED[name]["expr"]
    taken = {display_duration(node.range) for node in nodes(expression, MatrixSelector)}
    taken |= {_window(read) for read in names(expression) & RECORDED.keys()}
    assert taken == {_window(name)}


def _window(name):
    return re.fullmatch(r"\w+:\w+:\w+?(\d+[mhd])", name).group(1)


@pytest.mark.parametrize("name", TOLD)
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(name):
    alert = TOLD[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert f"\n## {name}\n" in RUNBOOK


def test_the_runbook_has_sections_for_the_alerts_and_for_nothing_else():
    assert re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE) == list(TOLD)


def test_queries_of_the_runbook_ask_for_numbers_that_there_are():
    spoken = re.sub(r"\s+", " ", RUNBOOK)
    queries = [span for span in re.findall(r"`([^`]+)`", spoken) if "skipvision_" in span or span.startswith("up{")]
    assert len(queries) > len(TOLD)
    assert [(query, problem) for query in queries for problem in problems(query)] == []


def test_settings_and_codes_that_the_runbook_names_are_there():
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:: [^`]*)?`", RUNBOOK)) - CATALOGUE.keys()
    kinds = (JobConfig, ServiceConfig, ModelConfig, TenantConfig, PriceList)
    settings = {each.name for kind in kinds for each in fields(kind)}
    assert named & settings
    assert named - settings - {*ERROR_CODES, *SERVICE_CODES} == {"error_code"}


def test_groups_have_names_of_their_own():
    groups = [group["name"] for file in (RECORDING, ALERTS) for group in yaml.safe_load(file.read_text())["groups"]]
    assert len(set(groups)) == len(groups)
    ordered = {name for file in TESTS for name in yaml.safe_load(file.read_text()).get("group_eval_order", ())}
    assert ordered <= set(groups)
