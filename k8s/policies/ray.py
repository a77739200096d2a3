"""Ray's clusters: what the operator refuses or silently leaves out, heads, groups, GPUs, spot, ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from k8s.policies.deployment import GPU, Deployment, Group, selects, tolerates
from k8s.rendering import ROOT
from skipvision.version import __version__

SPOT = "skipvision/capacity"
"""Label and taint of spot nodes."""

_MARKET = "ray.io/market-type"
_NOTICE = "skipvision/notice-seconds"
_LAST_SECONDS = 10
"""What Ray's processes have to end in, after the drain."""

_MOST_CHARACTERS = 47
"""Of the name of a RayService or RayJob: the operator adds to it."""

_CRON_ADDS = len("-29000000")
"""To the name of a CronJob, for each of its Jobs."""


def names_fit(deployment: Deployment) -> Iterator[str]:
    """The operator refuses names of more than 47 characters, and those that are no DNS-1035 label."""
    names = [each["metadata"]["name"] for each in deployment.of("RayService", "RayJob")]
    names += [each["metadata"]["name"] + "-" + "0" * (_CRON_ADDS - 1) for each in deployment.of("CronJob")]
    for name in names:
        if len(name) > _MOST_CHARACTERS or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
            yield f"{name} is no DNS-1035 label of at most {_MOST_CHARACTERS} characters"


def groups_have_sizes_in_order(deployment: Deployment) -> Iterator[str]:
    """Of each group of workers, the least, the first and the most are said and ascend."""
    for group in deployment.workers():
        sizes = [group.spec.get(name) for name in ("minReplicas", "replicas", "maxReplicas")]
        if None in sizes or sizes != sorted(sizes):  # type: ignore[type-var]
            yield f"{group.pod.name}: minReplicas, replicas, maxReplicas are {sizes}"


def heads_do_no_work(deployment: Deployment) -> Iterator[str]:
    """A head that works is a head that dies of it: no CPUs of Ray's, no GPU, never on spot nodes."""
    for head in deployment.heads():
        if head.spec.get("rayStartParams", {}).get("num-cpus") != "0":
            yield f"{head.pod.name}: rayStartParams.num-cpus must be '0'"
        if head.has_gpu:
            yield f"{head.pod.name} asks for a GPU"
        if tolerates(head.pod, SPOT, "spot"):
            yield f"{head.pod.name} may be put on spot nodes"
        if head.pod.limit("memory") < 2 * 2**30:
            yield f"{head.pod.name} has less than 2 GiB of memory"


def the_operators_rules_hold(deployment: Deployment) -> Iterator[str]:
    """Contradictions that the definitions of Ray's objects let pass and the operator refuses."""
    for group in deployment.groups():
        start, name = group.spec.get("rayStartParams", {}), group.pod.name
        twice = sorted(set(start) & {"num-cpus", "num-gpus", "memory", "resources"})
        if twice and group.spec.get("resources"):
            yield f"{name}: {twice} stand in rayStartParams, beside resources"
        if "labels" in start:
            yield f"{name}: labels belong into the group, not into rayStartParams"
        variables = {each["name"] for each in group.pod.main.get("env", ())}
        taken = {"RAY_enable_autoscaler_v2"} if "version" in group.cluster.get("autoscalerOptions", {}) else set()
        if "gcsFaultToleranceOptions" in group.cluster:
            taken |= {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"}
        if variables & taken:
            yield f"{name}: {sorted(variables & taken)} are the operator's to set"
        if group.cluster.get("enableInTreeAutoscaling") and group.pod.spec.get("restartPolicy", "Never") != "Never":
            yield f"{name}: the autoscaler needs restartPolicy Never, or none"
        if not group.cluster.get("enableInTreeAutoscaling") and "autoscalerOptions" in group.cluster:
            yield f"{name}: autoscalerOptions without enableInTreeAutoscaling do nothing"


def jobs_cost_no_more_than_they_may(deployment: Deployment) -> Iterator[str]:
    """A job waits only so long for its nodes, is tried again only so often, ends, and takes its cluster along."""
    for job in deployment.of("RayJob"):
        spec, name = job["spec"], job["metadata"]["name"]
        for field in ("backoffLimit", "preRunningDeadlineSeconds", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
            if not spec.get(field):
                yield f"{name}: {field} is not set"
        if spec.get("preRunningDeadlineSeconds", 0) >= spec.get("activeDeadlineSeconds", 0):
            yield f"{name}: preRunningDeadlineSeconds is not shorter than activeDeadlineSeconds"
        # Kueue and `suspend` need the one; the other contradicts it.
        if not spec.get("shutdownAfterJobFinishes"):
            yield f"{name}: shutdownAfterJobFinishes is not set"
        if "deletionStrategy" in spec:
            yield f"{name}: deletionStrategy contradicts shutdownAfterJobFinishes"
        if not spec.get("suspend"):
            yield f"{name} would start as soon as it is applied: suspend is not set"
        if spec.get("clusterSelector"):
            yield f"{name}: backoffLimit needs a cluster of its own"


def jobs_have_the_workers_they_ask_for(deployment: Deployment) -> Iterator[str]:
    """All from the start, so that waiting for them is what the deadline and Kueue count."""
    groups = deployment.workers("RayJob")
    if any(group.cluster.get("enableInTreeAutoscaling") for group in groups):
        yield "a job's cluster is scaled, so that it counts as ready before its workers are there"
    pods, workers = sum(group.spec.get("replicas", 0) for group in groups), deployment.job().get("workers")
    if pods != workers:
        yield f"job.yaml asks for {workers} workers, and there are {pods} Pods for them"


def ray_versions_agree(deployment: Deployment) -> Iterator[str]:
    """The operator, the image and the tests are about one Ray; images are of this version."""
    [ray] = re.findall(r"^ray==(\S+)$", Path(ROOT, "constraints.txt").read_text(), re.M)
    for group in deployment.groups():
        if group.cluster.get("rayVersion") != ray:
            yield f"{group.pod.name}: rayVersion is {group.cluster.get('rayVersion')}, and constraints.txt has {ray}"
        variant = "cuda" if group.has_gpu else "cpu"
        if not group.pod.main["image"].endswith(f"skipvision:{__version__}-{variant}"):
            yield f"{group.pod.name}: the image is {group.pod.main['image']}, and not {__version__}-{variant}"


def clusters_ask_for_a_token(deployment: Deployment) -> Iterator[str]:
    """Whoever reaches a head's dashboard without one can run anything."""
    for head in deployment.heads():
        if head.cluster.get("authOptions", {}).get("mode") != "token":
            yield f"{head.pod.name}: authOptions.mode is not token"


def gpus_are_asked_for_whole(deployment: Deployment) -> Iterator[str]:
    """A GPU stands in the limits, where Ray counts it, and its Pods come to nodes that have one and keep others off."""
    for group in deployment.workers():
        if not group.has_gpu:
            continue
        asked = group.pod.main.get("resources", {})
        if not asked.get("limits", {}).get(GPU) or asked.get("requests", {}).get(GPU) != asked["limits"][GPU]:
            yield f"{group.pod.name}: {GPU} must stand in limits, and in requests the same"
        if not tolerates(group.pod, GPU):
            yield f"{group.pod.name}: nodes with GPUs are tainted {GPU}, which is not tolerated"
        if not any(key.startswith("nvidia.com/gpu") for key in group.pod.spec.get("nodeSelector", {})):
            yield f"{group.pod.name}: nodeSelector names no nodes with GPUs"
        if _MARKET not in group.spec.get("labels", {}):
            yield f"{group.pod.name}: without the label {_MARKET} its GPUs are counted at a wrong price"


def spot_groups_are_spot(deployment: Deployment) -> Iterator[str]:
    """A group that says spot comes to spot nodes, is counted at their price, and ends within their notice; no other."""
    for group in deployment.workers():
        signs = {
            f"labels {_MARKET}": group.spec.get("labels", {}).get(_MARKET) == "spot",
            "nodeSelector": group.pod.spec.get("nodeSelector", {}).get(SPOT) == "spot",
            "toleration": tolerates(group.pod, SPOT, "spot"),
            _NOTICE: _NOTICE in group.pod.annotations,
        }
        if any(signs.values()) and not all(signs.values()):
            yield f"{group.pod.name} is spot only in part: {signs}"
        notice = float(group.pod.annotations.get(_NOTICE, "inf"))
        if group.pod.spec.get("terminationGracePeriodSeconds", 30) > notice:
            yield f"{group.pod.name}: its Pods end later than {notice:g} s after the notice"


def spot_is_filled_first(deployment: Deployment) -> Iterator[str]:
    """Where the service has spot GPUs beside others, they are asked for before those."""
    groups = [group for group in deployment.workers("RayService") if group.has_gpu]
    spot = [_priority(group) for group in groups if group.spec.get("labels", {}).get(_MARKET) == "spot"]
    other = [_priority(group) for group in groups if group.spec.get("labels", {}).get(_MARKET) != "spot"]
    if spot and other and min(spot) <= max(other):
        yield f"spot groups have the priorities {spot}, and others {other}"
    if any(group.cluster.get("autoscalerOptions", {}).get("version") != "v2" for group in groups):
        yield "priorities of groups need autoscalerOptions.version v2"


def _priority(group: Group) -> int:
    return int(group.spec.get("priority", 0))


def pods_outlive_their_drain(deployment: Deployment) -> Iterator[str]:
    """A worker's node is drained for longer than replicas may take, and its Pod waits for that; so do old clusters."""
    needed = deployment.settings().get("drain_seconds", 60)
    for group in deployment.workers():
        command = group.pod.main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ())
        if len(command) != 2 or command[0] != "skipvision-drain":
            yield f"{group.pod.name} is not drained before it ends"
            continue
        drain, grace = float(command[1]), group.pod.spec.get("terminationGracePeriodSeconds", 30)
        if drain <= needed:
            yield f"{group.pod.name} is drained for {drain:g} s, and drain_seconds are {needed:g}"
        if grace < drain + _LAST_SECONDS:
            yield f"{group.pod.name} is drained for {drain:g} s, and its Pod is killed after {grace} s"
    for service in deployment.of("RayService"):
        if service["spec"].get("rayClusterDeletionDelaySeconds", 60) <= needed + _LAST_SECONDS:
            yield "rayClusterDeletionDelaySeconds: an old cluster goes before it has answered"


def budgets_let_nodes_be_drained(deployment: Deployment) -> Iterator[str]:
    """Whole numbers only, since Kubernetes cannot count a RayCluster; below the least size of what they are about."""
    for budget in deployment.of("PodDisruptionBudget"):
        spec, name = budget["spec"], budget["metadata"]["name"]
        least = spec.get("minAvailable")
        if "maxUnavailable" in spec or not isinstance(least, int):
            yield f"{name}: only a whole minAvailable works for Pods of Ray's"
            continue
        pods = [each for each in deployment.workers() if selects(spec["selector"], each.pod.labels)]
        if least >= sum(each.spec.get("minReplicas", 0) for each in pods):
            yield f"{name}: {least} must stay of groups that may have no more: their nodes can never be drained"


def the_service_survives_a_node(deployment: Deployment) -> Iterator[str]:
    """What is always there of the service is spread over nodes and zones, and has a budget if it is more than one."""
    budgets = deployment.of("PodDisruptionBudget")
    for group in deployment.workers("RayService"):
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone"):
            if not any(
                each["topologyKey"] == key and selects(each["labelSelector"], group.pod.labels)
                for each in group.pod.spec.get("topologySpreadConstraints", ())
            ):
                yield f"{group.pod.name}: its Pods are not spread over {key}"
        if group.spec.get("minReplicas", 0) > 1 and not any(
            selects(budget["spec"]["selector"], group.pod.labels) for budget in budgets
        ):
            yield f"{group.pod.name} has no disruption budget"


def models_start_from_zero(deployment: Deployment) -> Iterator[str]:
    """Somewhere for models there need be no Pod while nobody asks, and the autoscaler makes them."""
    groups = deployment.workers("RayService")
    if not any(group.spec.get("minReplicas") == 0 for group in groups):
        yield "no group of the service starts from zero"
    if not all(group.cluster.get("enableInTreeAutoscaling") for group in groups):
        yield "enableInTreeAutoscaling is not set"
