"""The Ray that a job runs on: the one of this process, a cluster by address, or one started here for the job's time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from skipvision.errors import ConfigError

LOCAL_CPUS = 6
"""Slots that a local Ray has at least. They are permissions, not cores: with two of them an engine and the tasks that
feed it can each wait for the other's."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to run on."""

    num_gpus: int
    is_local: bool
    """On this machine alone, and started by this job."""


@contextmanager
def cluster(address: str | None) -> Iterator[Cluster]:
    """A connection to Ray inside the `with` block; what was started for it is stopped after it.

    Raises:
        ConfigError: no cluster answers at `address`.
    """
    starts = not ray.is_initialized()
    if starts:
        _connect(address)
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield Cluster(num_gpus=int(resources.get("GPU", 0)), is_local=starts and address is None)
    finally:
        if starts:
            ray.shutdown()


def _connect(address: str | None) -> None:
    # Read by Ray when it starts; nobody asked for reports to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Ray warns in red of the arguments that Ray Data gives to each actor which may be restarted.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        slots = max(LOCAL_CPUS, os.cpu_count() or 1)
        ray.init("local", num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        return
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error
