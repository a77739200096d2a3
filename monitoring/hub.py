"""The hub of a cluster: one actor that outlives jobs, services and, with a file for its totals, itself.

It is on the head node, which is there as long as the cluster is, and needs no CPU of Ray's. Whoever comes first starts
it; Ray starts it again when it dies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from skipvision.errors import ConfigError
from skipvision.metrics.feed import Feed
from skipvision.metrics.hub import Hub, Report

NAME, NAMESPACE = "hub", "skipvision"
HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head node."""

_ANSWER_SECONDS = 15.0
_START_SECONDS = 120.0


class HubActor:
    """A `Hub` in a process of its own."""

    def __init__(self, port: int, host: str, totals: str | None) -> None:
        self._hub = Hub(None if totals is None else Path(totals))
        self._address = f"http://{host}:{self._hub.serve(port, host)}/metrics"

    def address(self) -> str:
        """Where it is read."""
        return self._address

    def report(self, reports: Sequence[Report]) -> None:
        """See `Hub.report`."""
        self._hub.report(*reports)

    def unknown(self, source: str, numbers: Sequence[int]) -> list[int]:
        """See `Hub.unknown`."""
        return self._hub.unknown(source, numbers)


def start_hub(port: int, host: str, totals: str | None) -> tuple[ActorHandle[Any], str]:
    """The cluster's hub and its address; one is started if there is none. Ray must be connected.

    Raises:
        ConfigError: it cannot listen there, or keep its totals there.
    """
    if (there := find_hub()) is not None:
        return there, address_of(there)
    actor: Any = ray.remote(HubActor).options(
        name=NAME, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, resources={HEAD: 0.001},
        max_restarts=-1, max_task_retries=-1, max_concurrency=64,
    )  # fmt: skip
    hub = actor.remote(port, host, totals)
    try:
        return hub, address_of(hub)
    except ray.exceptions.RayActorError as error:
        raise ConfigError(f"the metrics hub cannot start: {_first_cause(error)}") from error


def address_of(hub: ActorHandle[Any]) -> str:
    """Where a hub is read."""
    address: Any = ray.get(hub.address.remote(), timeout=_START_SECONDS)
    return str(address)


def find_hub() -> ActorHandle[Any] | None:
    """The cluster's hub. None: there is none."""
    try:
        return ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return None


def feed_of(hub: ActorHandle[Any], *, before: Callable[[], object] = lambda: None) -> Feed:
    """A way to tell a hub; see `Feed`."""

    def send(reports: Sequence[Report]) -> None:
        ray.get(hub.report.remote(reports), timeout=_ANSWER_SECONDS)

    def ask(source: str, numbers: Sequence[int]) -> list[int]:
        found: list[int] = ray.get(hub.unknown.remote(source, numbers), timeout=_START_SECONDS)
        return found

    return Feed(send, ask, before=before)


def _first_cause(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if "ConfigError: " in line]
    return lines[-1].partition("ConfigError: ")[2] if lines else str(error)
