"""What is wrong in each case of `mutations.yaml`, done to the manifests of an overlay."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.policies.deployment import Deployment
from k8s.rendering import Manifest

SCHEMAS = "schemas"

_OBJECTS = {"API": "RayService/skipvision", "JOB": "RayJob/skipvision-batch"}
_PLACES = {
    "CLUSTER": "spec.rayClusterConfig",
    "HEAD": "spec.rayClusterConfig.headGroupSpec",
    "DOOR": "spec.rayClusterConfig.workerGroupSpecs.0",
    "GPU": "spec.rayClusterConfig.workerGroupSpecs.1",
    "SPOT": "spec.rayClusterConfig.workerGroupSpecs.2",
    "WORKERS": "spec.rayClusterSpec.workerGroupSpecs.0",
    "POD": "template.spec",
    "MAIN": "template.spec.containers.0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One thing that is wrong."""

    name: str
    caught_by: str
    content: Mapping[str, Any]

    @property
    def overlay(self) -> str:
        """Where it is wrong."""
        return str(self.content.get("in", "gpu"))

    def applied(self, deployment: Deployment) -> Deployment:
        """A copy of the deployment with it."""
        copy = deepcopy(deployment)
        for change in self.content.get("all", [self.content]):
            _change(copy, change)
        return copy


def mutations() -> list[Mutation]:
    """All of them."""
    table = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return [
        Mutation(name=name, caught_by=caught_by, content=content)
        for caught_by, cases in table.items()
        for name, content in cases.items()
    ]


def _change(deployment: Deployment, change: Mapping[str, Any]) -> None:
    if "serve" in change:
        _replace(_object(deployment, "API"), "spec.serveConfigV2", *change["serve"])
    elif "job" in change:
        _replace(_object(deployment, "ConfigMap/skipvision-config"), "data.job~yaml", *change["job"])
    elif "add" in change:
        deployment.manifests.append(change["add"])
    elif "without" in change:
        found = _object(deployment, change["without"])
        (deployment.manifests if found in deployment.manifests else deployment.beside).remove(found)
    elif "replace" in change:
        _replace(_object(deployment, change["of"]), *change["replace"])
    elif "drop" in change:
        at, last = _place(_object(deployment, change["of"]), change["drop"])
        del at[last]
    else:
        path, value = change["set"]
        at, last = _place(_object(deployment, change["of"]), path)
        if last == "-":
            at.append(value)
        else:
            at[last] = value


def _object(deployment: Deployment, name: str) -> Manifest:
    kind, _, name = _OBJECTS.get(name, name).partition("/")
    found = deployment.find(kind, name)
    assert found is not None, f"there is no {kind}/{name}"
    return found


def _place(manifest: Manifest, path: str) -> tuple[Any, Any]:
    """What holds a field, and the field's name or number there."""
    parts = ".".join(_PLACES.get(part, part) for part in path.split(".")).split(".")
    at: Any = manifest
    for number, part in enumerate(parts):
        key: Any = int(part) if isinstance(at, list) and part != "-" else part.replace("~", ".")
        if number == len(parts) - 1:
            return at, key
        at = at[key]
    raise AssertionError(path)


def _replace(manifest: Manifest, path: str, old: str, new: str) -> None:
    at, last = _place(manifest, path)
    assert old in at[last], old
    at[last] = at[last].replace(old, new)
