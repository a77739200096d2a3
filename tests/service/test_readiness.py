"""What the door knows of its replicas while Ray Serve's controller does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import service.replicas
from service.config import ModelConfig
from service.models import offers
from service.replicas import Readiness, deployment_name, record_replicas
from skipvision.metrics import REPLICAS, Registry

OFFERED = offers((ModelConfig(name="zoo", device="cpu"),))


class Controller:
    """Says that there is one replica, or nothing while it is away."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.asked = 0
        self.deployed = True

    def status(self) -> Any:
        self.asked += 1
        self.is_there.wait()
        deployment = SimpleNamespace(replica_states={"RUNNING": 1})
        names = map(deployment_name, OFFERED.values())
        app = SimpleNamespace(deployments=dict.fromkeys(names, deployment))
        return SimpleNamespace(applications={"skipvision": app} if self.deployed else {})


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    controller = Controller()
    monkeypatch.setattr("service.replicas.serve.status", controller.status)
    monkeypatch.setattr(service.replicas, "READY_SECONDS", 0.0)
    monkeypatch.setattr(service.replicas, "ANSWER_SECONDS", 0.2)
    yield controller
    controller.is_there.set()


@pytest.fixture
def ready() -> Readiness:
    return Readiness(OFFERED, lambda _: "skipvision")


def told(ready: Readiness, times: int = 1) -> list[dict[str, Any]]:
    async def tell() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(ready() for _ in range(times))))

    return asyncio.run(tell())


def test_a_door_is_as_ready_as_it_was_while_the_controller_is_away(controller: Controller, ready: Readiness) -> None:
    controller.is_there.set()
    assert told(ready) == [{"ready": True, "replicas": {"zoo": 1}}]
    controller.is_there.clear()
    assert told(ready) == [{"ready": True, "replicas": {"zoo": 1}}]


def test_it_knows_what_was_seen_when_replicas_were_counted(controller: Controller, ready: Readiness) -> None:
    controller.is_there.set()
    ready.states()
    controller.is_there.clear()
    assert told(ready) == [{"ready": True, "replicas": {"zoo": 1}}]


def test_a_door_that_has_seen_no_replica_is_not_ready(controller: Controller, ready: Readiness) -> None:
    assert told(ready) == [{"ready": False, "replicas": {}}]
    controller.deployed = False
    controller.is_there.set()
    assert told(ready) == [{"ready": False, "replicas": {}}]


def test_many_who_ask_whether_it_is_ready_ask_the_controller_once(controller: Controller, ready: Readiness) -> None:
    told(ready, times=20)
    with pytest.raises(TimeoutError):
        ready.states()
    assert controller.asked == 1


def test_a_question_that_was_lost_is_asked_again(
    controller: Controller, ready: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(ready)
    monkeypatch.setattr(service.replicas, "LOST_SECONDS", 0.0)
    told(ready)
    assert controller.asked == 2


def test_whoever_records_replicas_goes_on_when_the_controller_is_away(controller: Controller, ready: Readiness) -> None:
    registry = Registry()
    record_replicas(ready, OFFERED, registry)
    assert registry.value(REPLICAS, model="zoo", state="running") == 0
    controller.is_there.set()
    until = time.monotonic() + 30
    while registry.value(REPLICAS, model="zoo", state="running") != 1:
        assert time.monotonic() < until
        record_replicas(ready, OFFERED, registry)
