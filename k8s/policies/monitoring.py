"""What is watched: the hub where Prometheus looks, names as alerts know them, dashboards that Grafana finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from k8s.policies.deployment import Deployment, selects
from k8s.rendering import ROOT, RULES, Manifest

_GENERATED = ROOT / "monitoring" / "dashboards" / "generated"
_MOST_BYTES = 2**20
"""Of a ConfigMap."""


def the_hub_is_where_it_is_read(deployment: Deployment) -> Iterator[str]:
    """Port, address and file of the hub are what the head declares and mounts, for service and job."""
    for kind, settings in (("RayService", deployment.settings()), ("RayJob", deployment.job())):
        for head in deployment.heads(kind):
            if settings.get("metrics_port") != head.pod.ports.get("hub-metrics"):
                yield f"{head.pod.name}: metrics_port is {settings.get('metrics_port')}, not that of `hub-metrics`"
            if settings.get("metrics_host") != "0.0.0.0":
                yield f"{head.pod.name}: metrics_host is {settings.get('metrics_host')}: only the Pod itself reads it"
            folder = str(settings.get("metrics_totals")).rpartition("/")[0]
            mounts = {mount["mountPath"]: mount["name"] for mount in head.pod.main.get("volumeMounts", ())}
            volumes = {volume["name"]: volume for volume in head.pod.spec.get("volumes", ())}
            if "persistentVolumeClaim" not in volumes.get(mounts.get(folder, ""), {}):
                yield f"{head.pod.name}: totals in {folder} are gone with the Pod"


def _monitors(deployment: Deployment) -> list[Manifest]:
    return [each for each in deployment.beside if each["kind"] == "PodMonitor"]


def every_endpoint_is_there(deployment: Deployment) -> Iterator[str]:
    """Each port that a PodMonitor names is declared by a Pod that it selects, and every node of Ray's is read."""
    read = set()
    for monitor in _monitors(deployment):
        groups = [each for each in deployment.groups() if selects(monitor["spec"]["selector"], each.pod.labels)]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            found = [each.pod.name for each in groups if endpoint["port"] in each.pod.ports]
            read |= {(name, endpoint["port"]) for name in found}
            if not found:
                yield f"{monitor['metadata']['name']}: no Pod that it selects has a port {endpoint['port']}"
    for group in deployment.groups():
        wanted = {"metrics", "hub-metrics", "as-metrics", "dash-metrics"} if group.is_head else {"metrics"}
        if missing := wanted - {port for name, port in read if name == group.pod.name}:
            yield f"{group.pod.name}: nobody reads {sorted(missing)}"


def series_have_the_names_that_alerts_know(deployment: Deployment) -> Iterator[str]:
    """`job` is skipvision for the hub and ray for Ray, and `cluster` is there, as in monitoring/config."""
    known = yaml.safe_load((ROOT / "monitoring" / "config" / "prometheus.yml").read_text())
    jobs = {each["job_name"] for each in known["scrape_configs"]}
    found = set()
    for monitor in _monitors(deployment):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            set_to = {each["targetLabel"]: each for each in endpoint.get("relabelings", ())}
            job = set_to.get("job", {}).get("replacement")
            found.add(job)
            if (job == "skipvision") is not (endpoint["port"] == "hub-metrics") or job not in jobs:
                yield f"{monitor['metadata']['name']}: {endpoint['port']} is read as the job {job}"
            if set_to.get("cluster", {}).get("sourceLabels") != _COMPONENT:
                yield f"{monitor['metadata']['name']}: {endpoint['port']} has no label `cluster`"
    if found != jobs:
        yield f"jobs are {sorted(map(str, found))}, and alerts know {sorted(jobs)}"


_COMPONENT = ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]


def rules_are_those_of_monitoring(deployment: Deployment) -> Iterator[str]:
    """Every recording rule and alert, as it is tested there."""
    wanted = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    found = [
        group for each in deployment.beside if each["kind"] == "PrometheusRule" for group in each["spec"]["groups"]
    ]
    if found != wanted:
        yield "the PrometheusRule is not what monitoring/rules says: run `make k8s-rendered`"


def dashboards_are_found(deployment: Deployment) -> Iterator[str]:
    """Each is a ConfigMap of its own, which Grafana's sidecar knows by its label and Kubernetes can hold."""
    wanted = {path.name: json.loads(path.read_text()) for path in _GENERATED.glob("*.json")}
    found: dict[str, Any] = {}
    for each in deployment.beside:
        if each["kind"] != "ConfigMap":
            continue
        name = each["metadata"]["name"]
        if each["metadata"].get("labels", {}).get("grafana_dashboard") != "1":
            yield f"{name}: without the label grafana_dashboard nobody finds it"
        if len(json.dumps(each)) > _MOST_BYTES or len(each["data"]) != 1:
            yield f"{name} must hold one dashboard, in 1 MiB"
        found |= {file: json.loads(text) for file, text in each["data"].items()}
    if found != wanted:
        changed = [name for name in wanted.keys() & found.keys() if found[name] != wanted[name]]
        yield f"dashboards differ from those of monitoring: {sorted({*changed, *(found.keys() ^ wanted.keys())})}"
