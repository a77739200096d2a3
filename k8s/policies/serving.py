"""The service and the batch job: their settings, room for their replicas, and the way of a request to them."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k8s.policies.deployment import Deployment, Group, selects
from service.config import ServiceConfig
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError
from skipvision.prices import load_prices

_QUEUE = "kueue.x-k8s.io/queue-name"
_PATIENCE, _MOST_SECONDS_AWAY = "RAY_SERVE_SLOW_STARTUP_WARNING_S", 600
"""How long Ray Serve's controller waits for what a replica says, and how long the operator has workers wait for a head
(docs/decisions/0021)."""
_MOST_GROUPS = 17
"""Groups of workers of a job that Kueue takes."""


def the_service_has_valid_settings(deployment: Deployment) -> Iterator[str]:
    """The arguments in the Serve config are a `ServiceConfig`, in which nothing is unknown."""
    application = deployment.application()
    if application.get("import_path") != "service:application":
        yield f"import_path is {application.get('import_path')}, and not service:application"
    try:
        check(application["args"], ServiceConfig, origin=f"{deployment.name}: serve.yaml")
    except ConfigError as error:
        yield str(error)


def the_job_has_valid_settings(deployment: Deployment) -> Iterator[str]:
    """The entrypoint names a file that is mounted and a `JobConfig`; the cluster is the one that it runs on."""
    for job in deployment.of("RayJob"):
        words = shlex.split(job["spec"]["entrypoint"])
        text = deployment.file(words[2]) if words[:2] == ["skipvision", "run"] and len(words) == 3 else None
        if text is None:
            yield f"{job['metadata']['name']}: {job['spec']['entrypoint']} names no job file that is mounted"
    try:
        config = check(deployment.job(), JobConfig, origin=f"{deployment.name}: job.yaml")
    except ConfigError as error:
        yield str(error)
        return
    if config.ray_address is None:
        yield "job.yaml: without ray_address the job would start a Ray of its own, on the head"


def prices_can_be_read(deployment: Deployment) -> Iterator[str]:
    """The price list that service and job name is mounted, in all Pods, and is one."""
    for settings in (deployment.settings(), deployment.job()):
        text = deployment.file(settings.get("prices") or "")
        if text is None:
            yield f"prices: {settings.get('prices')} is not mounted"
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "prices.yaml")
            path.write_text(text)
            try:
                load_prices(str(path))
            except ConfigError as error:
                yield str(error)
    for group in deployment.groups():
        if "/etc/skipvision" not in _mounts(group):
            yield f"{group.pod.name}: /etc/skipvision is not mounted"


def _mounts(group: Group) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in group.pod.main.get("volumeMounts", ())}


def whoever_asks_is_known(deployment: Deployment) -> Iterator[str]:
    """The service has tenants, whose keys are mounted, or says in so many words that it has none."""
    settings = deployment.settings()
    if not settings.get("tenants") and not settings.get("insecure"):
        yield "serve.yaml names no tenants, and does not say `insecure`: the host that it names is not used here"
    for tenant in settings.get("tenants", ()):
        for path in tenant.get("key_files", ()):
            folder = path.rpartition("/")[0]
            for group in deployment.workers("RayService"):
                if folder not in _mounts(group):
                    yield f"{group.pod.name}: {folder}, where keys of {tenant['name']} are, is not mounted"


def replicas_have_room(deployment: Deployment) -> Iterator[str]:
    """As many as there may be find Pods; a CPU replica fits one; on GPUs `device` says so; the door has its CPU."""
    groups = deployment.workers("RayService")
    gpus = sum(group.spec["maxReplicas"] for group in groups if group.has_gpu)
    cpu_pods = [group for group in groups if not group.has_gpu and group.name != "door"]
    wanted = {"cuda": 0, "cpu": 0}
    for model in deployment.settings()["models"]:
        device = str(model.get("device", "auto")).partition(":")[0]
        if device not in wanted:
            yield f"{model.get('name')}: device {device} is decided by what the cluster has when it starts: nothing"
            continue
        wanted[device] += model.get("max_replicas", 1)
        fits = any(group.pod.limit("cpu") >= model.get("cpus", 1) for group in cpu_pods)
        if device == "cpu" and not fits:
            yield f"{model.get('name')}: no Pod has {model.get('cpus', 1)} CPUs for a replica"
    if wanted["cuda"] > gpus:
        yield f"{wanted['cuda']} replicas on GPUs find {gpus} Pods"
    if wanted["cpu"] > sum(group.spec["maxReplicas"] for group in cpu_pods):
        yield f"{wanted['cpu']} replicas on CPUs find fewer Pods"
    door = [group for group in groups if group.name == "door"]
    if not door or door[0].spec["minReplicas"] < 1 or door[0].spec["rayStartParams"].get("num-cpus") != "1":
        yield "the door needs a group `door`, of at least one Pod, of one CPU of Ray's each"
    job_gpu = any(group.has_gpu for group in deployment.workers("RayJob"))
    if deployment.job().get("device") != ("cuda" if job_gpu else "cpu"):
        has = "have" if job_gpu else "have no"
        yield f"job.yaml: device is {deployment.job().get('device')}, and its workers {has} GPUs"


def requests_find_their_way(deployment: Deployment) -> Iterator[str]:
    """Serve listens where Pods, Services, Ingress and Gateway look for it, and nobody gives up before it does."""
    config = deployment.serve_config()
    http = config.get("http_options", {})
    if http.get("host") != "0.0.0.0":
        yield f"http_options.host is {http.get('host')}: only the Pod itself reaches it"
    if config.get("proxy_location") != "EveryNode":
        yield "proxy_location must be EveryNode: heads get no requests"
    for group in deployment.workers("RayService"):
        if (port := group.pod.ports.get("serve")) != http.get("port"):
            yield f"{group.pod.name}: the port `serve` is {port}, and Serve's {http.get('port')}"
    [service] = deployment.of("RayService")
    if not service["spec"].get("excludeHeadPodFromServeSvc"):
        yield "excludeHeadPodFromServeSvc is not set: the head, which has no proxy, would be asked"
    name = f"{service['metadata']['name']}-serve-svc"
    for place, backend, port in _backends(deployment):
        if (backend, port) != (name, http.get("port")):
            yield f"{place} leads to {backend}:{port}, and the service is {name}:{http.get('port')}"
    longest = float(deployment.settings().get("request_seconds", 300))
    for route in deployment.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            timeout = rule.get("timeouts", {}).get("request", "0s")
            if not re.fullmatch(r"\d+s", timeout) or float(timeout[:-1]) <= longest:
                yield f"HTTPRoute: requests are given up after {timeout}, and may take {longest:g} s"


def _backends(deployment: Deployment) -> Iterator[tuple[str, str, int]]:
    for route in deployment.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for each in rule["backendRefs"]:
                yield "HTTPRoute", each["name"], each["port"]
    for ingress in deployment.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                yield "Ingress", backend["name"], backend["port"]["number"]


def upgrades_can_be_made(deployment: Deployment) -> Iterator[str]:
    """A gradual one has the autoscaler, steps that add up, and no other route to the service beside the operator's."""
    for service in deployment.of("RayService"):
        strategy = service["spec"].get("upgradeStrategy", {})
        if strategy.get("type") not in {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}:
            yield f"upgradeStrategy.type is {strategy.get('type')}"
        options = strategy.get("clusterUpgradeOptions")
        if (strategy.get("type") == "NewClusterWithIncrementalUpgrade") is not (options is not None):
            yield "upgradeStrategy: clusterUpgradeOptions belong to the incremental upgrade, and to nothing else"
        if options is None:
            continue
        if not 1 <= options.get("stepSizePercent", 0) <= options.get("maxSurgePercent", 100) <= 100:
            yield "upgradeStrategy: 1 <= stepSizePercent <= maxSurgePercent <= 100 does not hold"
        if deployment.of("HTTPRoute", "Ingress"):
            yield "upgradeStrategy: the operator's own route shifts requests, and another one here goes past it"


def a_head_that_dies_comes_back(deployment: Deployment) -> Iterator[str]:
    """Where the service is for others, its head's books are in a Redis that is there and keeps them."""
    for head in deployment.heads("RayService"):
        options = head.cluster.get("gcsFaultToleranceOptions")
        if options is None:
            if not deployment.settings().get("insecure"):
                yield f"{head.pod.name}: gcsFaultToleranceOptions is not set"
            continue
        found = re.fullmatch(r"redis://([a-z-]+):(\d+)", options.get("redisAddress", ""))
        service = deployment.find("Service", found[1]) if found else None
        if found is None or service is None or int(found[2]) not in [p["port"] for p in service["spec"]["ports"]]:
            yield f"{head.pod.name}: there is no Redis at {options.get('redisAddress')}"
            continue
        if not any(selects({"matchLabels": service["spec"]["selector"]}, pod.labels) for pod in deployment.pods()):
            yield f"the Service {found[1]} selects no Pod"
        reference = options.get("redisPassword", {}).get("valueFrom", {}).get("secretKeyRef")
        if reference != {"name": "skipvision-redis", "key": "password"}:
            yield f"{head.pod.name}: the password of Redis does not come from its Secret"
        variables = {each["name"]: each.get("value") for each in head.pod.main.get("env", ())}
        if float(variables.get(_PATIENCE) or 0) < _MOST_SECONDS_AWAY:
            yield (
                f"{head.pod.name}: {_PATIENCE} is {variables.get(_PATIENCE)}: a controller that came back would kill "
                f"replicas that are slow to say who they are; workers wait {_MOST_SECONDS_AWAY} s for a head"
            )
        config = deployment.find("ConfigMap", "skipvision-redis")
        if config is None or "appendonly yes" not in config["data"]["redis.conf"]:
            yield "Redis keeps nothing on its disk"


def heads_share_no_file(deployment: Deployment) -> Iterator[str]:
    """In an upgrade two heads of the service stand side by side: their totals are in folders of their own."""
    for head in deployment.heads("RayService"):
        mount = _mounts(head).get("/var/lib/skipvision/metrics", {})
        variables = {each["name"]: each for each in head.pod.main.get("env", ())}
        field = variables.get("CLUSTER", {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if mount.get("subPathExpr") != "$(CLUSTER)" or field != "metadata.labels['ray.io/cluster']":
            yield f"{head.pod.name}: the folder of totals is not the cluster's own"


def queues_are_there(deployment: Deployment) -> Iterator[str]:
    """A job that waits in Kueue waits in a queue that exists, for resources that it hands out, and Kueue starts it."""
    for job in deployment.of("RayJob"):
        if (name := job["metadata"].get("labels", {}).get(_QUEUE)) is None:
            continue
        local = deployment.find("LocalQueue", name)
        queue = deployment.find("ClusterQueue", local["spec"]["clusterQueue"]) if local else None
        if queue is None:
            yield f"{job['metadata']['name']}: the queue {name} leads nowhere"
            continue
        given = {name for group in queue["spec"]["resourceGroups"] for name in group["coveredResources"]}
        groups = [group for group in deployment.groups() if group.owner is job]
        for group in groups:
            if missing := set(group.pod.main["resources"]["requests"]) - given:
                yield f"{group.pod.name}: the queue hands out no {sorted(missing)}"
        if len(groups) - 1 > _MOST_GROUPS:
            yield f"{job['metadata']['name']}: Kueue takes at most {_MOST_GROUPS} groups of workers"
        for flavor in (each for group in queue["spec"]["resourceGroups"] for each in group["flavors"]):
            if deployment.find("ResourceFlavor", flavor["name"]) is None:
                yield f"the queue names nodes of a kind that is not there: {flavor['name']}"


def schedules_start_each_job_once(deployment: Deployment) -> Iterator[str]:
    """The zone is said, a second try does no harm, and what is copied is a job that does not start by itself."""
    for cron in deployment.of("CronJob"):
        spec, name = cron["spec"], cron["metadata"]["name"]
        if spec.get("concurrencyPolicy") != "Forbid" or not spec.get("timeZone"):
            yield f"{name}: concurrencyPolicy Forbid and a timeZone are needed"
        job = spec["jobTemplate"]["spec"]
        if not job.get("activeDeadlineSeconds") or not spec.get("startingDeadlineSeconds"):
            yield f"{name} may wait without end"
        variables = {each["name"]: each for each in job["template"]["spec"]["containers"][0]["env"]}
        template = deployment.find("RayJob", variables["TEMPLATE"]["value"])
        if template is None:
            yield f"{name}: there is no RayJob {variables['TEMPLATE']['value']} to copy"
        elif _QUEUE in template["metadata"].get("labels", {}):
            yield f"{name}: Kueue would start what is copied; name the queue in QUEUE instead"
        field = variables["NAME"].get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if field != "metadata.labels['batch.kubernetes.io/job-name']":
            yield f"{name}: without the name that the schedule gives, a second try starts a second job"
