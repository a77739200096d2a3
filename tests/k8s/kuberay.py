"""The part of the operator, of its autoscaler and of Kubernetes that a head's death needs: Pods as they make them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import yaml

from k8s.policies.deployment import number
from k8s.rendering import HERE, ROOT, UNITS, Manifest
from tests.k8s.pods import Pod, Pods

T = TypeVar("T")

CLUSTER = "skipvision-abcde"
HEAD = "skipvision-head-svc.skipvision.svc.cluster.local"
_FROM_IMAGE = {
    "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # not the image's: other tests, too, may be at work on this machine
}


def manifests(overlay: str) -> dict[str, Manifest]:
    """The objects of an overlay by kind and name."""
    [unit] = [unit for unit in UNITS if unit.name == overlay]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in unit.manifests()}


class Cluster:
    """The service of the base, on CPUs, with the head of the overlay `gpu`, whose books are in a Redis.

    Args:
        secrets: of each Secret, key -> value.
        claims: of each PersistentVolumeClaim, its folder.
        redis: whether the head is told of one.
    """

    def __init__(
        self, pods: Pods, folder: Path, secrets: Mapping[str, Mapping[str, str]], claims: Mapping[str, Path], *,
        redis: bool = True,
    ) -> None:  # fmt: skip
        self._pods, self._folder, self._claims, self._redis = pods, folder, claims, redis
        self._secrets = dict(secrets)
        self._of = manifests("gpu")
        self._spec = self._of["RayService/skipvision"]["spec"]["rayClusterConfig"]
        on_cpus = yaml.safe_load((HERE / "base" / "api.rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
        self._groups = {group["groupName"]: group for group in on_cpus["workerGroupSpecs"]}
        self._token = "t" * 32
        self._http = httpx.Client(headers={"Authorization": f"Bearer {self._token}"}, timeout=60)
        self.head: Pod | None = None

    def start_redis(self) -> Pod:
        """As its StatefulSet has it."""
        template = self._of["StatefulSet/skipvision-redis"]["spec"]["template"]["spec"]
        [container] = template["containers"]
        template = template | {"volumes": [*template["volumes"], _claim("data", "skipvision-redis")]}
        return self._pods.start(
            "redis", container["command"], environment=_FROM_IMAGE | self._environment(container),
            volumes=self._volumes(template, container), service="skipvision-redis",
            user=template["securityContext"]["runAsUser"],
        )  # fmt: skip

    def start_head(self) -> Pod:
        """The first one, or the one that is made when that is gone."""
        group = self._spec["headGroupSpec"]
        added = {"RAY_ADDRESS": "127.0.0.1:6379"}
        params = {"no-monitor": "true"}
        if self._redis:
            options = self._spec["gcsFaultToleranceOptions"]
            password = self._value(options["redisPassword"])
            added |= {
                "RAY_REDIS_ADDRESS": options["redisAddress"], "REDIS_PASSWORD": password,
                "RAY_external_storage_namespace": "5d7f2b3c-0000-4000-8000-000000000000",
            }  # fmt: skip
            params |= {"redis-password": "$REDIS_PASSWORD"}
        self.head = self._start_ray("head", "ray start --head", group, params, added, service=HEAD)
        return self.head

    def see_to_the_head(self) -> None:
        """Make another head where the last one has ended."""
        if self.head is None or self.head.process.poll() is not None:
            self.start_head()

    def start_worker(self, group_name: str) -> Pod:
        """One more of a group."""
        added = {"RAY_ADDRESS": f"{HEAD}:6379", "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
        params = {"address": f"{HEAD}:6379"}
        return self._start_ray(group_name, "ray start", self._groups[group_name], params, added)

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Give Ray Serve its config, as the operator does."""
        assert self.head is not None
        self._http.put(self._dashboard(), json=config).raise_for_status()

    def applications(self) -> dict[str, Any]:
        """What Ray Serve runs, by name."""
        found: dict[str, Any] = self._http.get(self._dashboard()).raise_for_status().json()["applications"]
        return found

    def change(self, secret: str, key: str, value: str) -> None:
        """Another value in a Secret, which the Pods that have it find in their file."""
        self._secrets[secret] = {**self._secrets.get(secret, {}), key: value}
        self._written(secret, self._secrets[secret])

    def _dashboard(self) -> str:
        assert self.head is not None
        return f"http://{self.head.address}:8265/api/serve/applications/"

    def _start_ray(
        self, name: str, command: str, group: Manifest, params: Mapping[str, str], added: Mapping[str, str],
        service: str | None = None,
    ) -> Pod:  # fmt: skip
        template = group["template"]["spec"]
        container = template["containers"][0]
        limits = container["resources"]["limits"]
        params = {
            "num-cpus": str(int(number(limits["cpu"]))), "memory": str(int(number(limits["memory"]))),
            "metrics-export-port": "8080", "dashboard-agent-listen-port": "52365", "block": "true",
            **group["rayStartParams"], **params,
        }  # fmt: skip
        flags = " ".join(f"--{key}" if value == "true" else f"--{key}={value}" for key, value in params.items())
        environment = {
            **_FROM_IMAGE, **self._environment(container), **added,
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token,
            "RAY_timeout_ms_task_wait_for_death_info": "0", "RAY_gcs_server_request_timeout_seconds": "5",
            "RAY_SERVE_KV_TIMEOUT_S": "5",
        }  # fmt: skip
        return self._pods.start(
            name, ["bash", "-c", f"ulimit -n 65536; {command} {flags}"], environment=environment,
            volumes=self._volumes(template, container), service=service,
        )  # fmt: skip

    def _environment(self, container: Manifest) -> dict[str, str]:
        return {each["name"]: self._value(each) for each in container.get("env", ())}

    def _value(self, each: Manifest) -> str:
        match each:
            case {"value": str(value)}:
                return value
            case {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}:
                return self._secrets[name][key]
            case {"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}}:
                return CLUSTER
            case _:
                raise ValueError(each)

    def _volumes(self, template: Manifest, container: Manifest) -> dict[str, Path]:
        """Path in the Pod -> folder."""
        volumes = {volume["name"]: volume for volume in template["volumes"]}
        found = {}
        for each in container["volumeMounts"]:
            folder = self._folder_of(volumes[each["name"]])
            if "subPathExpr" in each:
                assert each["subPathExpr"] == "$(CLUSTER)"
                folder = folder / CLUSTER
                folder.mkdir(exist_ok=True)
            found[each["mountPath"]] = folder
        return found

    def _folder_of(self, volume: Manifest) -> Path:
        match volume:
            case {"configMap": {"name": name}}:
                return self._written(name, self._of[f"ConfigMap/{name}"]["data"])
            case {"secret": {"secretName": name}}:
                return self._written(name, self._secrets[name])
            case {"persistentVolumeClaim": {"claimName": name}}:
                return self._claims[name]
            case _:
                raise ValueError(volume)

    def _written(self, name: str, files: Mapping[str, str]) -> Path:
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_text(content)
        return folder


def _claim(name: str, claim: str) -> Manifest:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def eventually(what: str, look: Callable[[], T | None], *, seconds: float = 300) -> T:
    """What `look` finds, once it finds something; until then it may fail as one does who is not there yet."""
    until = time.monotonic() + seconds
    failed: Exception | None = None
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except (httpx.HTTPError, KeyError, ValueError) as error:
            failed = error
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s") from failed
