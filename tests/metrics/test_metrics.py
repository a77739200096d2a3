"""Numbers are published only as declared, exist from the start, and read the same over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skipvision import metrics
from skipvision.engine import FinishReason
from skipvision.errors import ConfigError
from skipvision.metrics import CATALOGUE, ERROR_CODES, Metric, Registry, catalogue_page

ROOT = Path(__file__).parents[2]
WORK = {"workload": "batch", "model": "m", "skip": "off"}
SOURCES = [*ROOT.glob("skipvision/**/*.py"), *ROOT.glob("pipelines/**/*.py")]


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_what_is_recorded_is_read_over_http(registry):
    to = registry.within(**WORK, job_name="j")
    to.add(metrics.ROWS, 3, outcome="ok")
    to.add(metrics.ROWS, 2, outcome="ok")
    to.set(metrics.JOB_PROGRESS, 0.25)
    to.observe(metrics.ROW_SECONDS, 0.07)
    port = registry.serve(0)
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        seen = samples(answer.read().decode())
    assert seen["skipvision_rows_total", labels(**WORK, outcome="ok")] == 5
    assert seen["skipvision_job_progress_ratio", labels(job_name="j")] == 0.25
    assert seen["skipvision_row_seconds_bucket", labels(**WORK, le="0.05")] == 0
    assert seen["skipvision_row_seconds_bucket", labels(**WORK, le="0.1")] == 1
    assert seen["skipvision_row_seconds_sum", labels(**WORK)] == 0.07


def test_answers_are_counted_by_every_way_they_can_end():
    assert metrics.ANSWERS.labels["finish_reason"] == get_args(FinishReason)


def test_a_value_on_a_bucket_s_bound_belongs_to_that_bucket(registry):
    registry.observe(metrics.ROW_SECONDS, 0.05, **WORK)
    assert samples(registry.text())["skipvision_row_seconds_bucket", labels(**WORK, le="0.05")] == 1


def test_a_value_above_all_bounds_is_still_counted(registry):
    registry.observe(metrics.ROW_SECONDS, 1e6, 2.0, **WORK)
    seen = samples(registry.text())
    assert seen["skipvision_row_seconds_bucket", labels(**WORK, le="300.0")] == 1
    assert seen["skipvision_row_seconds_bucket", labels(**WORK, le="+Inf")] == 2


def test_every_counter_stands_at_zero_once_it_is_known_what_is_counted(registry):
    names = {
        **WORK, "device": "cpu", "capacity": "spot", "tenant": "t", "job_name": "j", "price_list": "p",
    }  # fmt: skip
    registry.within(**names)
    seen = samples(registry.text())
    counters = [metric for metric in CATALOGUE.values() if metric.kind == "counter"]
    assert len(counters) > 20
    for metric in counters:
        for values in metric.series():
            named = {name: names[name] for name in metric.named}
            assert seen[metric.name, labels(**named, **dict(zip(metric.labels, values, strict=True)))] == 0


def test_a_gauge_is_there_when_there_is_something_to_say(registry):
    assert "skipvision_retention_target_ratio{" not in registry.text()
    registry.within(**WORK).set(metrics.RETENTION_TARGET, 0.5)
    assert "skipvision_retention_target_ratio{" in registry.text()


def test_a_recorder_gives_each_metric_the_labels_that_it_has(registry):
    to = registry.within(model="m", workload="online").within(tenant="t")
    to.add(metrics.REQUESTS, 1, status="200")
    to.add(metrics.TENANT_WORK_SECONDS, 2)
    assert registry.value(metrics.REQUESTS, model="m", status="200") == 1
    assert registry.value(metrics.TENANT_WORK_SECONDS, tenant="t") == 2
    with pytest.raises(ValueError, match=r"has the labels \['model', 'outcome', 'skip', 'workload'\]"):
        to.add(metrics.ROWS, 1, outcome="ok")


def test_nothing_is_published_that_is_not_declared(registry):
    registry.within(**WORK, device="cpu", capacity="spot", tenant="t", job_name="j")
    published = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in samples(registry.text())}
    assert published == {name for name, metric in CATALOGUE.items() if metric.kind != "gauge"} | {metrics.BUILD.name}


def test_two_registries_do_not_share_their_numbers(registry):
    registry.add(metrics.ROWS, 1, **WORK, outcome="ok")
    assert Registry().value(metrics.ROWS, **WORK, outcome="ok") == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"outcome": "fine"}, "knows outcome=ok, error; got 'fine'"),
        ({"result": "ok"}, r"has the labels \['model', 'outcome', 'skip', 'workload'\]"),
        ({}, r"; got \['model', 'skip', 'workload'\]"),
    ],
)
def test_a_label_that_is_not_declared_is_refused(registry, given, says):
    with pytest.raises(ValueError, match=says):
        registry.add(metrics.ROWS, 1, **WORK, **given)


def test_an_error_code_belongs_to_one_stage(registry):
    to = registry.within(**WORK)
    to.add(metrics.ERRORS, 1, stage="decode", code="image_empty")
    with pytest.raises(ValueError, match="has no series with"):
        to.add(metrics.ERRORS, 1, stage="fetch", code="image_empty")


def test_a_metric_that_is_not_in_the_catalogue_is_refused(registry):
    stray = Metric(name="skipvision_stray_total", kind="counter", unit="strays", help="Nobody declared it.")
    with pytest.raises(ValueError, match="not in the catalogue"):
        registry.add(stray, 1)


def test_a_counter_never_goes_down_and_is_not_set(registry):
    with pytest.raises(ValueError, match="only goes up"):
        registry.add(metrics.ROWS, -1, **WORK, outcome="ok")
    with pytest.raises(ValueError, match="is a counter and cannot be used as a gauge"):
        registry.set(metrics.ROWS, 1, **WORK, outcome="ok")


def test_a_port_that_is_taken_is_named_with_the_remedy(registry):
    port = registry.serve(0)
    with pytest.raises(ConfigError, match=f"port {port} .* choose another port"):
        Registry().serve(port)


def test_the_port_is_free_again_once_closed(registry):
    port = registry.serve(0)
    registry.close()
    assert registry.serve(port) == port


def test_the_page_in_docs_is_the_one_the_catalogue_prints():
    assert (ROOT / "docs" / "metrics.md").read_text() == catalogue_page(), "run: skipvision metrics > docs/metrics.md"


def test_every_declared_number_is_recorded_somewhere():
    """A name that only the catalogue mentions is a number nobody publishes."""
    recording = [*SOURCES, *ROOT.glob("service/*.py")]
    declaring = {"catalogue.py", "__init__.py"}
    code = "\n".join(path.read_text() for path in recording if path.name not in declaring)
    names = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()


def test_every_error_code_in_the_sources_is_one_that_the_catalogue_counts():
    assert set().union(*(codes_in(path.read_text()) for path in SOURCES)) <= set(ERROR_CODES)


@pytest.mark.parametrize(
    "source",
    [
        'raise InputError("odd", code="image_odd")',
        'class OddError(InputError):\n    default_code = "image_odd"',
        'refusal("image_odd", "it is odd")',
        'Code = Literal["image_odd"]',
    ],
)
def test_a_new_error_code_would_be_noticed(source):
    assert "image_odd" in codes_in(source)


def codes_in(source: str) -> set[str]:
    """Error codes in Python source: given as `code=`, named first in a refusal, or listed in a type of codes."""
    given = re.findall(r'\b(?:default_|error_)?code\s*=\s*"([a-z0-9_]+)"', source)
    named = re.findall(r'(?:[Rr]efusal|[Rr]efuse|Error)\(\s*"((?:image|fetch|url|prompt)_[a-z0-9_]+)"', source)
    listed = re.findall(r'"([a-z0-9_]+)"', " ".join(re.findall(r"Code = Literal\[(.*?)\]", source, re.DOTALL)))
    return {*given, *named, *listed}
