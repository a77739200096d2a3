"""What a board can be narrowed by. Which of these a board shows follows from what its expressions ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from skipvision import metrics
from skipvision.metrics import Metric

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The Prometheus that was chosen at the head of the board."""

_MEANT: dict[str, tuple[str, Metric, str, str]] = {
    "cluster": ("cluster", metrics.BUILD, "Cluster", "The label that the scrape adds; All where it adds none."),
    "workload": ("workload", metrics.IMAGES, "Workload", "Jobs (batch), the service (online), or both."),
    "model": ("model", metrics.IMAGES, "Model", "The model's name, as the job or the service calls it."),
    "skip": ("skip", metrics.IMAGES, "Skip setting", "How much is skipped; `request`: each request's own."),
    "tenant": ("tenant", metrics.TENANT_REQUESTS, "Tenant", "Whose keys the requests came with."),
    "job": ("job_name", metrics.JOB_RUNNING, "Job", "The job's name."),
}
"""Variable -> label, a metric that has it, what it is called, what it means."""


def variables_for(expressions: Iterable[str]) -> list[Builder[VariableModel]]:
    """The data source, and each variable that an expression names."""
    named = {name for each in expressions for name in re.findall(r"\$(\w+)", each)}
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    source.description("The Prometheus that scrapes skipvision.").current(VariableOption(text="Prometheus", value=""))
    return [source, *(_variable(name) for name in _MEANT if name in named)]


def _variable(name: str) -> builders.QueryVariable:
    label, metric, called, meaning = _MEANT[name]
    within = "" if name == "cluster" else '{cluster=~"$cluster"}'
    return (
        builders.QueryVariable(name)
        .label(called)
        .description(meaning)
        .datasource(SOURCE)
        .query(f"label_values({metric.name}{within}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )
