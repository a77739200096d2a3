"""The Ray that a job runs on: the one of this process, a cluster by address, or one started here for the job's time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from skipvision.config import JobConfig
from skipvision.errors import ConfigError

LOCAL_SLOTS = 6
"""CPUs that a local Ray claims to have, at least. They are permissions, not cores: with two of them an engine and the
tasks that feed it can each wait for the other's."""

_START_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a job takes of the Ray it runs on."""

    workers: int
    """Engines side by side."""
    engine_resources: dict[str, Any]
    """Ray's options for each of them."""
    prepare_tasks: int | None
    """Tasks that may prepare images at a time. None: as many as Ray finds room for."""


@contextmanager
def cluster(config: JobConfig) -> Iterator[Cluster]:
    """A connection to Ray inside the `with` block; what was started for it is stopped after it.

    Raises:
        ConfigError: no cluster answers at the address, or this process's own Ray is too small.
    """
    workers = config.workers or 1
    with connected(config.ray_address, slots=workers * _threads(workers) + _cores()) as is_ours:
        yield _share_of(config, is_local=is_ours and config.ray_address is None)


@contextmanager
def connected(address: str | None, *, slots: int) -> Iterator[bool]:
    """A connection to Ray inside the `with` block: whether it was made, or Ray was started, for it alone.

    Args:
        address: a cluster's. None: start Ray on this machine, unless this process has one.
        slots: CPUs that a Ray started here should claim to have, if that is more than `LOCAL_SLOTS`.

    Raises:
        ConfigError: no cluster answers at the address.
    """
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(address, slots)
    try:
        yield is_ours
    finally:
        if is_ours:
            ray.shutdown()


def _connect(address: str | None, slots: int) -> None:
    # Read by Ray when it starts; nobody asked for reports to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A task that takes all memory is tried again without end otherwise.
    os.environ.setdefault("RAY_task_oom_retries", "3")
    if address is None:
        # Ray warns in red of the arguments that Ray Data gives to each actor which may be restarted.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # Ray's 15 leaves a job a thirtieth of a core beside one other busy process: it would seem to stand still.
        os.environ.setdefault("RAY_worker_niceness", "0")
        _start_local(max(LOCAL_SLOTS, slots))
        return
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error


def _start_local(slots: int) -> None:
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        try:
            ray.init("local", num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            return
        except Exception as error:
            # Ray waits 30 seconds for its own processes, whatever the machine is busy with, and raises a bare
            # Exception. What it started ends with this process; the next attempt starts beside it.
            if "timed out during startup" not in str(error) or not attempts_left:
                raise
            ray.shutdown()


def _share_of(config: JobConfig, *, is_local: bool) -> Cluster:
    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus, cpus = int(found.get("GPU", 0)), found.get("CPU", 0)
    on_gpus = config.device.startswith("cuda") or (config.device == "auto" and gpus > 0)
    workers = config.workers or (max(1, gpus) if on_gpus else 1)
    if on_gpus:
        # The engine's process needs little of a CPU, and Ray would keep a whole one from the tasks that feed it.
        return Cluster(workers=workers, engine_resources={"num_gpus": 1, "num_cpus": 0}, prepare_tasks=None)
    if config.ray_address is None and cpus < workers + 1:
        raise ConfigError(
            f"the Ray of this process has {cpus:g} CPUs; {workers} workers and a task that feeds them need "
            f"{workers + 1}"
        )
    # Ray gives a process as many threads as it reserves CPUs for it.
    threads = _threads(workers) if is_local else 1
    # Real cores: each task's process holds its own copy of the model's processor.
    return Cluster(
        workers=workers, engine_resources={"num_cpus": threads}, prepare_tasks=_cores() if is_local else None
    )


def _threads(workers: int) -> int:
    return max(1, _cores() // workers)


def _cores() -> int:
    return os.cpu_count() or 1
