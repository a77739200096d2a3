"""An overlay as policies see it: its objects, and the Pods that will come of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from k8s.rendering import UNITS, Manifest

GPU = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """A Pod, or many alike, as its template and whoever makes it have it."""

    name: str
    """For people: the object it comes from, and the group."""
    labels: Mapping[str, str]
    """With those that the operator adds."""
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def main(self) -> dict[str, Any]:
        """The first, which is Ray's in a Pod of Ray's."""
        first: dict[str, Any] = self.spec["containers"][0]
        return first

    @property
    def ports(self) -> dict[str, int]:
        """Name -> number of the ports that are declared."""
        return {
            port.get("name", ""): port["containerPort"] for each in self.containers for port in each.get("ports", ())
        }

    def limit(self, resource: str) -> float:
        """Of the main container; 0 where none is set."""
        return number(self.main.get("resources", {}).get("limits", {}).get(resource, 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The head of a Ray cluster, or a group of workers."""

    owner: Manifest
    """The RayService or RayJob."""
    cluster: Mapping[str, Any]
    name: str
    spec: Mapping[str, Any]
    pod: Pod

    @property
    def is_head(self) -> bool:
        """Whether it is the head."""
        return self.pod.labels["ray.io/node-type"] == "head"

    @property
    def has_gpu(self) -> bool:
        """Whether its Pods ask for a GPU anywhere."""
        return any(GPU in each.get("resources", {}).get(kind, {}) for each in self.pod.containers for kind in _ASKED)


_ASKED = ("requests", "limits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """An overlay and what is applied beside it."""

    name: str
    manifests: list[Manifest]
    beside: list[Manifest]
    """Of the cluster's administrators, and of monitoring."""

    def of(self, *kinds: str) -> list[Manifest]:
        """The overlay's objects of these kinds."""
        return [each for each in self.manifests if each["kind"] in kinds]

    def find(self, kind: str, name: str) -> Manifest | None:
        """An object, of the overlay or beside it."""
        every = (*self.manifests, *self.beside)
        return next((each for each in every if (each["kind"], each["metadata"]["name"]) == (kind, name)), None)

    def groups(self, kind: str | None = None) -> list[Group]:
        """Heads and groups of workers, of one kind of object or of both."""
        owners = self.of(kind) if kind else self.of("RayService", "RayJob")
        return [group for owner in owners for group in _groups(owner)]

    def workers(self, kind: str | None = None) -> list[Group]:
        """Groups of workers."""
        return [group for group in self.groups(kind) if not group.is_head]

    def heads(self, kind: str | None = None) -> list[Group]:
        """Heads."""
        return [group for group in self.groups(kind) if group.is_head]

    def pods(self) -> list[Pod]:
        """All Pods that come of the overlay."""
        found = [group.pod for group in self.groups()]
        for each in self.of("StatefulSet", "Deployment", "Job"):
            found.append(_pod(each["metadata"]["name"], each["spec"]["template"]))
        for each in self.of("CronJob"):
            found.append(_pod(each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]))
        return found

    def serve_config(self) -> dict[str, Any]:
        """What Ray Serve runs."""
        [service] = self.of("RayService")
        config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
        return config

    def application(self) -> dict[str, Any]:
        """The one application there."""
        [application] = self.serve_config()["applications"]
        return dict(application)

    def settings(self) -> dict[str, Any]:
        """Of the service, as they are given."""
        return dict(self.application()["args"])

    def file(self, path: str) -> str | None:
        """The text of a file in /etc/skipvision. None: there is none."""
        config = self.find("ConfigMap", "skipvision-config")
        folder, _, name = path.rpartition("/")
        return config["data"].get(name) if config is not None and folder == "/etc/skipvision" else None

    def job(self) -> dict[str, Any]:
        """Settings of the batch job, as they are given."""
        return dict(yaml.safe_load(self.file("/etc/skipvision/job.yaml") or "{}"))


Policy = Callable[[Deployment], Iterator[str]]


def deployments() -> list[Deployment]:
    """The overlays as they are committed."""
    beside = [manifest for unit in UNITS if not unit.is_overlay for manifest in unit.manifests()]
    return [Deployment(name=unit.name, manifests=unit.manifests(), beside=beside) for unit in UNITS if unit.is_overlay]


def _groups(owner: Manifest) -> Iterator[Group]:
    spec = owner["spec"]
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or {}
    specs = [("headgroup", "head", cluster["headGroupSpec"])]
    specs += [(each["groupName"], "worker", each) for each in cluster.get("workerGroupSpecs", ())]
    for name, kind, group in specs:
        operators = {"ray.io/node-type": kind, "ray.io/group": name, "ray.io/cluster": "x", "ray.io/is-ray-node": "yes"}
        pod = _pod(f"{owner['metadata']['name']}/{name}", group["template"], operators)
        yield Group(owner=owner, cluster=cluster, name=name, spec=group, pod=pod)


def _pod(name: str, template: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Pod:
    meta = template.get("metadata", {})
    return Pod(
        name=name,
        labels={**meta.get("labels", {}), **(labels or {})},
        annotations=meta.get("annotations", {}),
        spec=template["spec"],
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector picks whatever has the labels; an empty one picks everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", ()):
        value = labels.get(each["key"])
        holds = {
            "In": value in each.get("values", ()),
            "NotIn": value not in each.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each["operator"]]
        if not holds:
            return False
    return True


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def number(quantity: str | float) -> float:
    """A quantity of Kubernetes: 500m, 4Gi.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mkMGTi]*)", str(quantity))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{quantity} is no quantity")
    return float(found[1]) * _UNITS[found[2]]


def tolerates(pod: Pod, key: str, value: str = "") -> bool:
    """Whether a Pod may be put on nodes with a taint that keeps others off."""
    return any(
        each.get("key") == key
        and each.get("effect") in (None, "NoSchedule")
        and (each.get("operator") == "Exists" or each.get("value") == value)
        for each in pod.spec.get("tolerations", ())
    )
