"""A head that is killed, and its Redis: who asks does not notice, and the cluster comes back as it was.

Real Ray and a real Redis, in Pods as the manifests and the operator make them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from k8s.rendering import HERE
from service.keys import hash_of
from tests.k8s.kuberay import Cluster, eventually, manifests
from tests.k8s.pods import Pods

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

CONFIG = yaml.safe_load((HERE / "base" / "serve" / "serve.yaml").read_text())
ASKED = {"model": "zoo", "messages": [{"role": "user", "content": "What can you do?"}], "max_tokens": 12}


class Service:
    """A service that runs, and who asks it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.keys = [f"sv-default-{'d' * 32}"]
        self._models = 0
        self.answered = 0
        self._let_in()

    def start(self) -> None:
        """Up to the first answer, for which a Pod is made as the autoscaler makes it: when one is needed."""
        self.redis = self.cluster.start_redis()
        self.cluster.start_head()
        eventually("a dashboard", lambda: self.cluster.applications() == {})
        door = self.cluster.start_worker("door")
        self._http = httpx.Client(base_url=f"http://{door.address}:8000", timeout=120)
        self.scale(1)

    def ask(self, key: str | None = None) -> int:
        """A question; the status of its answer."""
        bearer = {"Authorization": f"Bearer {key or self.keys[0]}"}
        status = self._http.post("/v1/chat/completions", json=ASKED, headers=bearer).status_code
        self.answered += status == 200
        return status

    @contextmanager
    def asking(self) -> Iterator[list[int]]:
        """Somebody asks for as long as the block lasts; the statuses of the answers, 0 for none."""
        told: list[int] = []
        ends = threading.Event()

        def ask() -> None:
            while not ends.wait(0.3):
                try:
                    told.append(self.ask())
                except httpx.HTTPError:
                    told.append(0)

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            yield told
        finally:
            ends.set()
            asker.join()

    def new_key(self) -> str:
        """A key that was put into the Secret just now."""
        self.keys.append(f"sv-default-{len(self.keys):032}")
        self._let_in()
        return self.keys[-1]

    def _let_in(self) -> None:
        hashes = "".join(f"sha256:{hash_of(key).hex()}\n" for key in self.keys)
        self.cluster.change("skipvision-api-keys", "api-keys", hashes)

    def replicas(self) -> dict[str, set[str]]:
        """Of the door and of the model, the actors that run."""
        return {
            name: {replica["actor_id"] for replica in deployment["replicas"] if replica["state"] == "RUNNING"}
            for name, deployment in self.cluster.applications()["skipvision"]["deployments"].items()
        }

    def is_running(self) -> bool:
        """Whether Ray Serve says so, of all that it has; meanwhile the operator does its part."""
        self.cluster.see_to_the_head()
        return [each["status"] for each in self.cluster.applications().values()] == ["RUNNING"]

    def readiness(self) -> dict[str, Any]:
        """What the door says of its replicas."""
        found: dict[str, Any] = self._http.get("/readyz", timeout=20).json()
        return found

    def counted(self) -> float:
        """Requests that the hub has counted as answered."""
        assert self.cluster.head is not None
        text = httpx.get(f"http://{self.cluster.head.address}:9400/metrics", timeout=20).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "skipvision_requests_total" and sample.labels["status"] == "200"
        )

    def scale(self, replicas: int) -> None:
        """Deploy a config that wants so many replicas, and make the Pods that they need."""
        config = yaml.safe_load(yaml.safe_dump(CONFIG))
        [application] = config["applications"]
        application["args"]["models"][0]["min_replicas"] = replicas
        before = self.replicas()["door"] if self._models else set()
        self.cluster.deploy(config)
        # The door first: it would take the room of a replica.
        eventually("another door", lambda: self.replicas()["door"] - before, seconds=120)
        while self._models < replicas:
            self.cluster.start_worker("models")
            self._models += 1
        eventually(f"{replicas} replicas", lambda: len(self.replicas()["model zoo"]) == replicas and self.is_running())
        assert self.ask() == 200
        eventually("a count", lambda: self.counted() == self.answered)
        # Another door knows nothing of replicas before it has asked for the first time.
        eventually("readiness", lambda: self.readiness()["ready"])


@contextmanager
def cluster(folder: Path, *, redis: bool = True) -> Iterator[Cluster]:
    claims = {name: folder / name for name in ("skipvision-models", "skipvision-metrics", "skipvision-redis")}
    for claim in claims.values():
        claim.mkdir()
    group = manifests("gpu")["StatefulSet/skipvision-redis"]["spec"]["template"]["spec"]["securityContext"]["fsGroup"]
    pods = Pods(folder)
    with pods.network():
        os.chown(claims["skipvision-redis"], -1, group)
        claims["skipvision-redis"].chmod(0o2775)
        secrets = {"skipvision-redis": {"password": "p" * 32}, "skipvision-api-keys": {"api-keys": ""}}
        yield Cluster(pods, folder, secrets, claims, redis=redis)


def test_without_redis_a_head_that_comes_back_knows_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path, redis=False) as made:
        made.start_head()
        eventually("a dashboard", lambda: made.applications() == {})
        made.deploy(CONFIG)
        eventually("an application", lambda: made.applications().keys() == {"skipvision"})
        assert made.head is not None
        made.head.kill()
        made.start_head()
        assert eventually("a dashboard", lambda: [made.applications()]) == [{}]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with cluster(tmp_path_factory.mktemp("service")) as made:
        service = Service(made)
        service.start()
        yield service


@pytest.mark.parametrize("victims", [("head",), ("redis",), ("head", "redis")], ids=" and ".join)
def test_who_asks_does_not_notice_and_the_cluster_comes_back_as_it_was(
    service: Service, victims: tuple[str, ...]
) -> None:
    replicas, counted, cluster = service.replicas(), service.counted(), service.cluster
    assert cluster.head is not None
    with service.asking() as told:
        if "head" in victims:
            cluster.head.kill()
        if "redis" in victims:
            service.redis.kill()
        told_before = len(told)
        key = service.new_key()
        eventually("the new key", lambda: service.ask(key) == 200)
        assert [service.readiness()["ready"] for _ in range(10)] == [True] * 10
        eventually("answers", lambda: len(told) > told_before + 20)
        if "redis" in victims:
            service.redis = cluster.start_redis()
        eventually("an application", service.is_running)
        assert service.replicas() == replicas
        assert eventually("a hub", lambda: [service.counted()]) >= [counted]
        told_before = len(told)
        eventually("answers", lambda: len(told) > told_before + 5)
    assert set(told) == {200}
    eventually("a count", lambda: service.counted() == service.answered)
    service.scale(len(replicas["model zoo"]) + 1)
