"""Expressions are written from declared metrics, and what is not declared is refused while they are written."""

from __future__ import annotations

import pytest

from monitoring.dashboards.queries import Of, ratio
from monitoring.expressions import filled_in
from skipvision import metrics


def test_a_series_is_narrowed_by_the_variables_that_its_metric_has_labels_for():
    assert Of(metrics.TENANT_REQUESTS, outcome="ok").per_second("tenant") == (
        'sum by (tenant) (rate(skipvision_tenant_requests_total{cluster=~"$cluster", tenant=~"$tenant", outcome="ok"}'
        "[$__rate_interval]))"
    )


def test_a_label_that_is_chosen_is_not_narrowed_again():
    assert "$workload" not in Of(metrics.IMAGES, workload="online").in_range()


def test_a_label_that_must_count_whole_is_not_narrowed():
    everyone = Of(metrics.TENANT_WORK_SECONDS).whatever("tenant").in_range()
    assert "$tenant" not in everyone
    assert "$cluster" in everyone


def test_a_gauge_that_is_said_by_one_is_not_added_up():
    assert Of(metrics.JOB_PROGRESS).now("job_name").startswith("max by (job_name)")
    assert Of(metrics.ENGINES).now("model").startswith("sum by (model)")


def test_nothing_is_divided_by_nothing():
    assert ratio("a", "b") == "a / (b > 0)"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: Of(metrics.IMAGES, outcom="ok"), "has no label outcom"),
        (lambda: Of(metrics.IMAGES, outcome="okay"), "knows outcome=ok, error; got 'okay'"),
        (lambda: Of(metrics.IMAGES, outcome=("ok", "okay")), "knows outcome=ok, error"),
        (lambda: Of(metrics.IMAGES).per_second("modell"), "has no label"),
        (lambda: Of(metrics.ENGINES).per_second(), "is a gauge; this is asked of a counter"),
        (lambda: Of(metrics.IMAGES).now(), "is a counter; this is asked of a gauge"),
        (lambda: Of(metrics.IMAGES).percentile(0.5), "is a counter; this is asked of a histogram"),
        (lambda: Of(metrics.REQUEST_SECONDS).within(11), "has no bucket up to 11"),
        (lambda: Of(metrics.BASELINE_COST).in_range("device"), "choose one, or keep them apart"),
    ],
)
def test_what_is_not_declared_is_refused(write, says):
    with pytest.raises(ValueError, match=says):
        write()


def test_variables_are_filled_in_so_that_a_prometheus_understands():
    asked = 'sum(rate(a{m=~"$model", b=~"${skip}"}[$__rate_interval])) / sum(increase(a[$__range]))'
    assert filled_in(asked, range_seconds=600, rate_interval="20s", chosen={"skip": "44/69"}) == (
        'sum(rate(a{m=~".*", b=~"44/69"}[20s])) / sum(increase(a[600s]))'
    )
