"""The hub as an actor: found by whoever comes, started again when it dies, and right to the cent when it is killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray.cluster_utils import Cluster

from monitoring.devices import device_of_this_process
from monitoring.hub import feed_of, find_hub, start_hub
from monitoring.publishing import Publishing
from skipvision import metrics
from skipvision.errors import ConfigError
from tests.service.conftest import free_port

DEVICE = {"workload": "online", "model": "m", "skip": "44/69", "device": "cpu", "capacity": "on_demand"}
CENTS = 600


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Of two nodes; the second one is spot."""
    ray.shutdown()
    os.environ.setdefault("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    cluster.add_node(num_cpus=2, resources={"second": 2}, labels={"ray.io/market-type": "spot"})
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    handle, address = start_hub(free_port(), "127.0.0.1", str(tmp_path / "totals.json"))
    yield handle, address
    ray.kill(handle)
    while find_hub() is not None:
        time.sleep(0.1)


def scraped(address: str, name: str) -> dict[tuple[str, ...], float]:
    """Some series by their labels' values; a hub that is starting again is waited for."""
    for attempt in range(30):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
            break
        except OSError:
            assert attempt < 29, "the hub does not come back"
            time.sleep(1)
    return {tuple(s.labels.values()): s.value for family in families for s in family.samples if s.name == name}


def spent(address: str) -> float:
    return sum(scraped(address, "skipvision_cost_usd_total").values())


def kill(hub: Any) -> None:
    """As a machine does it: nothing is closed or saved."""
    os.kill(ray.get(hub.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


@ray.remote(num_cpus=0)
class Spender:
    """A process that spends a cent at a time, and tells the hub of its cluster."""

    def spend(self, cents: int) -> None:
        feed = Publishing().numbers()
        to = feed.registry.within(**DEVICE)
        for _ in range(cents):
            to.add(metrics.COST, 0.01, basis="measured")
            time.sleep(0.1)
        feed.close(patience_seconds=120)


@pytest.mark.faults
def test_a_hub_that_is_killed_again_and_again_is_right_to_the_cent(hub: tuple[Any, str]) -> None:
    handle, address = hub
    spending = [Spender.remote() for _ in range(4)]
    done = [each.spend.remote(CENTS) for each in spending]
    lots, kills = random.Random(0), 0
    while len(ray.wait(done, num_returns=len(done), timeout=lots.uniform(0.2, 3.0))[0]) < len(done):
        kill(handle)
        kills += 1
        spent(address)  # it is back
    ray.get(done)
    spent(address)
    assert kills >= 5
    assert round(spent(address) * 100) == len(done) * CENTS
    assert spent(address) == pytest.approx(len(done) * CENTS / 100, abs=1e-6)


def test_a_hub_that_is_killed_comes_back_with_its_totals_at_the_same_address(hub: tuple[Any, str]) -> None:
    handle, address = hub
    feed = feed_of(handle)
    feed.registry.within(**DEVICE).add(metrics.COST, 0.5, basis="measured")
    feed.close()
    kill(handle)
    feed = feed_of(handle)
    feed.registry.within(**DEVICE).add(metrics.COST, 0.25, basis="measured")
    feed.close(patience_seconds=60)
    assert spent(address) == 0.75
    assert find_hub() is not None


def test_whoever_comes_second_finds_the_hub_that_is_there(hub: tuple[Any, str]) -> None:
    _, address = hub
    found = [None, None]

    def come(number: int) -> None:
        found[number] = start_hub(free_port(), "127.0.0.1", None)  # type: ignore[call-overload]

    threads = [threading.Thread(target=come, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each[1] for each in found} == {address}  # type: ignore[index]


def test_a_port_that_is_taken_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the metrics hub cannot start: .*port 1 of 203\.0\.113\.1.* another port"):
        start_hub(1, "203.0.113.1", None)


def test_who_wants_no_hub_and_finds_none_starts_none() -> None:
    assert find_hub() is None
    numbers = Publishing().numbers()
    numbers.registry.within(**DEVICE).add(metrics.COST, 1.0, basis="measured")
    numbers.close()
    assert find_hub() is None
    assert numbers.registry.value(metrics.COST, **DEVICE, basis="measured") == 1.0


def test_a_process_knows_what_ray_gave_it_and_whether_its_node_is_spot() -> None:
    task = ray.remote(lambda: device_of_this_process(on_gpu=False))
    here = ray.get(task.options(num_cpus=3).remote())
    assert (here.kind, here.capacity, here.units) == ("cpu", "on_demand", 3.0)
    there = ray.get(task.options(num_cpus=1, resources={"second": 1}).remote())
    assert (there.capacity, there.units) == ("spot", 1.0)
    driver = device_of_this_process(on_gpu=False)
    assert (driver.kind, driver.units) == ("cpu", 1.0)
