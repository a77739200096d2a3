"""A RayJob and its ConfigMap, made from a template: everything but the job itself is the template's.

The template is a file, or the RayJob of k8s/ that waits in the cluster. It says which image, machines, accounts,
volumes and deadlines a job has. Put in are its names, the command, and the job file and price list, which are mounted
where the driver runs, in the first container of the head. The ConfigMap keeps the RayJob as it was sent, so that the
job can be started again when nothing else is left of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.submission.request import JobRequest
from skipvision.errors import ConfigError
from skipvision.version import __version__

Manifest = dict[str, Any]

MOUNT = "/etc/skipvision-job"
"""Where the driver finds its files; the templates of k8s/ have files of their own at /etc/skipvision."""
JOB_FILE, PRICE_FILE, RAYJOB_FILE = "job.yaml", "prices.yaml", "rayjob.yaml"
LABELS = {"app.kubernetes.io/name": "skipvision", "app.kubernetes.io/managed-by": "skipvision-submit"}
OUTPUT, NAME = "skipvision/output", "skipvision/name"
"""Annotations."""

_VOLUME = "skipvision-job"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def read_template(path: Path) -> Manifest:
    """The RayJob in a YAML file, which may hold other documents beside it.

    Raises:
        ConfigError: it cannot be read, or is not one RayJob that a job can run in.
    """
    try:
        documents = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"template {path} cannot be read: {error}") from error
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == "RayJob"]
    if len(found) != 1:
        raise ConfigError(f"template {path} must hold one RayJob; it holds {len(found)}")
    check_template(found[0], str(path))
    return found[0]


def check_template(template: Manifest, origin: str) -> None:
    """Refuse what is not a RayJob that a job can run in.

    Raises:
        ConfigError: naming the origin and the field.
    """
    if template.get("apiVersion") != "ray.io/v1":
        raise ConfigError(f"template {origin} is of {template.get('apiVersion')}; RayJobs of ray.io/v1 are sent")
    spec = template.get("spec") or {}
    if spec.get("clusterSelector"):
        raise ConfigError(
            f"template {origin} selects a cluster that is there (spec.clusterSelector), where its driver would find no "
            "job file; submit to that cluster's --address"
        )
    if spec.get("submissionMode") == "InteractiveMode":
        raise ConfigError(f"template {origin} waits for somebody to start the job (spec.submissionMode); use HTTPMode")
    try:
        containers = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
        assert containers[0]["name"]
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"template {origin} has no spec.rayClusterSpec.headGroupSpec.template.spec.containers with a first "
            "container, in which the driver would run"
        ) from error


def manifests(request: JobRequest, template: Manifest, *, namespace: str | None) -> tuple[Manifest, Manifest]:
    """The ConfigMap and the RayJob of a job."""
    rayjob = _rayjob(request, template, namespace)
    files = {JOB_FILE: _job_file(request), RAYJOB_FILE: yaml.safe_dump(rayjob, sort_keys=False)}
    if (prices := request.price_file()) is not None:
        files[PRICE_FILE] = prices
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(request, namespace, {}), "data": files}
    return config_map, rayjob


def manifests_text(request: JobRequest, template: Manifest, *, namespace: str | None) -> str:
    """Both as YAML, as `kubectl apply` takes them."""
    return yaml.safe_dump_all(manifests(request, template, namespace=namespace), sort_keys=False)


def request_in(data: Mapping[str, str]) -> JobRequest:
    """The job in a ConfigMap."""
    request = JobRequest.from_files(data[JOB_FILE], data.get(PRICE_FILE))
    settings = {name: value for name, value in request.settings.items() if name not in ("ray_address", "prices")}
    return JobRequest(settings=settings, prices=request.prices)


def _rayjob(request: JobRequest, template: Manifest, namespace: str | None) -> Manifest:
    rayjob = copy.deepcopy(template)
    rayjob.pop("status", None)
    rayjob["metadata"] = _metadata(request, namespace, rayjob.get("metadata") or {})
    # `suspend` is of one that waits for somebody to start it; Kueue suspends those of its queues by itself.
    for name in ("jobId", "suspend"):
        rayjob["spec"].pop(name, None)
    rayjob["spec"]["entrypoint"] = f"python -m skipvision.cli run {MOUNT}/{JOB_FILE}"
    pod = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    volume = {"name": _VOLUME, "configMap": {"name": request.id}}
    mount = {"name": _VOLUME, "mountPath": MOUNT, "readOnly": True}
    pod["volumes"] = [*_others(pod.get("volumes")), volume]
    driver = pod["containers"][0]
    driver["volumeMounts"] = [*_others(driver.get("volumeMounts")), mount]
    return rayjob


def _others(named: list[Manifest] | None) -> list[Manifest]:
    return [each for each in named or [] if each["name"] != _VOLUME]


def _job_file(request: JobRequest) -> str:
    where = {} if request.prices is None else {"prices": f"{MOUNT}/{PRICE_FILE}"}
    return request.job_file(ray_address="auto", **where)


def _metadata(request: JobRequest, namespace: str | None, template: Manifest) -> Manifest:
    """Names, and what the template says besides."""
    where = namespace or template.get("namespace")
    return {
        "name": request.id,
        **({"namespace": where} if where else {}),
        "labels": {**(template.get("labels") or {}), **LABELS, "app.kubernetes.io/version": __version__},
        "annotations": {**_annotations(template), OUTPUT: request.output, NAME: request.name},
    }


def _annotations(metadata: Manifest) -> Manifest:
    """Without the manifest that `kubectl apply` keeps among them, which is of another object."""
    return {name: value for name, value in (metadata.get("annotations") or {}).items() if name != _LAST_APPLIED}
