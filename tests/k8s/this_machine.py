"""What manifests say, on this machine: all stays as it is written but for what is true in a Pod alone."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2 as httpx
from prometheus_client.parser import text_string_to_metric_families

from k8s.policies.deployment import Deployment, Group
from service.auth import new_key
from skipvision.families.checkpoint import resolve_model
from tests.pipelines.submission.ray_cluster import free_ports, ray_cluster

CONFIG, SECRETS = "/etc/skipvision", "/run/secrets/skipvision"
METRICS, MODELS = "/var/lib/skipvision/metrics", "/models"
ON_CPUS = {"device: cuda": "device: cpu"}

_TOKEN = "a-token-of-this-test-alone-0123456789"
_PATIENCE_SECONDS = 240.0


def replaced(text: str, stand_ins: Mapping[str, str]) -> str:
    """The text with something else in the place of each of these, all of which must be there.

    Raises:
        AssertionError: one is not: the manifest says something else by now, and so must the test.
    """
    for said, stand_in in stand_ins.items():
        assert said in text, f"{said!r} is not there to be replaced in: {text}"
        text = text.replace(said, stand_in)
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Folders in the place of an overlay's mounts, with what is mounted there, and free ports of 127.0.0.1.

    A checkpoint that GPUs are to find at /models/captions is the one that ships with the package.
    """

    deployment: Deployment
    folder: Path
    port: int
    hub_port: int
    key: str
    """Of a caller; its hash is mounted."""

    @classmethod
    def of(cls, deployment: Deployment, folder: Path) -> Machine:
        """With folders inside this one."""
        for mount in ("config", "secrets", "metrics", "models"):
            (folder / mount).mkdir()
        key, key_hash = new_key()
        (folder / "secrets" / "api-keys").write_text(f"{key_hash}\n")
        (folder / "models" / "captions").symlink_to(resolve_model("zoo"))
        port, hub_port = free_ports(2)
        machine = cls(deployment=deployment, folder=folder, port=port, hub_port=hub_port, key=key)
        (folder / "config" / "prices.yaml").write_text(machine._file("prices.yaml"))
        stand_ins = machine._of_both() | (ON_CPUS if machine.wants_gpus else {})
        (folder / "config" / "job.yaml").write_text(replaced(machine._file("job.yaml"), stand_ins))
        return machine

    @property
    def wants_gpus(self) -> bool:
        """Whether the overlay does."""
        return any(group.has_gpu for group in self.deployment.workers())

    @property
    def totals(self) -> Path:
        """The hub's file."""
        return self.folder / "metrics" / "totals.json"

    def serve_config(self) -> str:
        """The RayService's."""
        [service] = self.deployment.of("RayService")
        listens = "  host: {}\n  port: {}\n"
        stand_ins = self._of_both() | {listens.format("0.0.0.0", 8000): listens.format("127.0.0.1", self.port)}
        if self.wants_gpus:
            stand_ins[SECRETS] = str(self.folder / "secrets")
        return replaced(service["spec"]["serveConfigV2"], stand_ins)

    def entrypoint(self) -> str:
        """The RayJob's. The job's file, in which more is replaced, lies where it says."""
        [job] = self.deployment.of("RayJob")
        return replaced(job["spec"]["entrypoint"], {CONFIG: str(self.folder / "config")})

    def _file(self, name: str) -> str:
        text = self.deployment.file(f"{CONFIG}/{name}")
        assert text is not None, f"{name} is not mounted"
        return text

    def _of_both(self) -> dict[str, str]:
        """What stands in service's and job's settings."""
        return {
            CONFIG: str(self.folder / "config"),
            METRICS: str(self.folder / "metrics"),
            "metrics_port: 9400": f"metrics_port: {self.hub_port}",
            "metrics_host: 0.0.0.0": "metrics_host: 127.0.0.1",
        } | ({MODELS: str(self.folder / "models")} if self.wants_gpus else {})


@contextmanager
def cluster_of(deployment: Deployment, kind: Literal["RayService", "RayJob"], log: Path) -> Iterator[httpx.Client]:
    """A Ray cluster whose nodes have the CPUs that the operator gives them, and a way to ask its head, with its token.

    There are as many nodes of a group as Pods from the start; where there are none, one, as the autoscaler would add.
    """
    [head] = deployment.heads(kind)
    workers = [_cpus(group) for group in deployment.workers(kind) for _ in range(max(1, group.spec["minReplicas"]))]
    secret = {"RAY_AUTH_MODE": head.cluster["authOptions"]["mode"], "RAY_AUTH_TOKEN": _TOKEN}
    with (
        ray_cluster(log, head_cpus=_cpus(head), worker_cpus=workers, **secret) as address,
        httpx.Client(base_url=address, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=60) as client,
    ):
        yield client


def _cpus(group: Group) -> int:
    """Of Ray's: those of its start parameters, else those that its container may use."""
    return int(group.spec["rayStartParams"].get("num-cpus") or math.ceil(group.pod.limit("cpu")))


def counted(metrics: str, name: str, label: str) -> dict[str, float]:
    """What a counter has counted, in the text that Prometheus reads: by one label, added up over the others."""
    found = defaultdict[str, float](float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[sample.labels[label]] += sample.value
    return dict(found)


def wait_until(holds: Callable[[], bool], told: Callable[[], str]) -> None:
    """Wait for what must come to be.

    Raises:
        AssertionError: it does not, with what is told then.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < until, told()
        time.sleep(0.3)
