"""Whole jobs on a real Ray cluster of a head and three workers, broken at one place: a process, a node, or everything.

The failure is timed by a place of `pipelines.failpoints`. What fails inside the process that passes there fails by
itself; for what comes from outside, the process waits at that place until it has come.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from benchmarks.faults.matrix import Point, has_struck, struck_process, wish
from benchmarks.faults.protocol import Played
from benchmarks.faults.running import Attempt, Attempts
from benchmarks.faults.stores import environment
from benchmarks.faults.verdict import Row, judge, rows_of
from benchmarks.machine import ROOT
from pipelines.failpoints import VARIABLE
from pipelines.folder import JobFolder
from skipvision.config import JobConfig

WORKERS = 3
INSIDE = ("kill", "polite exit", "store error", "disk full", "memory error")
"""Kinds that happen in the process that passes the point."""
OUTSIDE_A_WORKER = ("node killed", "node drained", "node frozen")
OUTSIDE = ("driver killed", "driver frozen", "cluster killed")

_PATIENCE = 240.0
_MOST_ATTEMPTS = 5
_GRACE_SECONDS = 12.0
"""From the notice of a drain to the end of its node."""
_SETTINGS = {
    # A node that says nothing for some seconds is dead; by default it takes half a minute.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "6",
    # A driver whose cluster is gone finds that out in this time; by default in a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    "RAY_worker_niceness": "0",  # a matrix that shares its machine would wait for ever
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


def kinds_at(point: Point) -> tuple[str, ...]:
    """What can happen to a job on a cluster at a point."""
    inside = tuple(kind for kind in INSIDE if kind in point.kinds)
    return (*inside, *OUTSIDE) if point.in_driver else (*inside, *OUTSIDE_A_WORKER, *OUTSIDE)


class ClusterMatrix:
    """Plays cells of the matrix, one after another, on one cluster as long as that lives.

    Args:
        config: the job; its output is replaced in each cell.
        scratch: a folder for what processes tell.
    """

    def __init__(self, config: JobConfig, scratch: Path) -> None:
        self._config, self._scratch = config, scratch
        self._attempts = Attempts(scratch, patience=_PATIENCE)
        self._wishes = scratch / "wishes.json"
        self._cluster: Cluster | None = None
        self._undisturbed: list[Row] = []

    @contextmanager
    def running(self) -> Iterator[ClusterMatrix]:
        """Inside the `with` block there is a cluster when one is needed, and after it there is none."""
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        with environment({**_SETTINGS, VARIABLE: f"@{self._wishes}"}):
            try:
                yield self
            finally:
                self._end_cluster()

    def undisturbed(self) -> list[Row]:
        """The rows of the job when nobody breaks it."""
        if not self._undisturbed:
            self._undisturbed = self.rows_of_undisturbed(self._config, "undisturbed-on-a-cluster")
        return self._undisturbed

    def rows_of_undisturbed(self, config: JobConfig, name: str) -> list[Row]:
        """The rows of any job when nobody breaks it."""
        config = replace(config, output=str(self._scratch / name))
        ended = self._finish(config, Counter())
        assert ended == "done", ended
        return rows_of(JobFolder(config.output))

    def play_wishes(self, config: JobConfig, wishes: dict[str, Any]) -> Counter[str]:
        """Run a job to its end in which the same things fail in every attempt; how attempts ended."""
        ends: Counter[str] = Counter()
        ends[self._finish(config, ends, wishes)] += 1
        return ends

    def play(self, point: Point, kind: str, output: str, *, repeat: int) -> Played:
        """Break a job at `point`, at a pass of it that `repeat` draws, and let others finish it."""
        rows = len(self.undisturbed())
        shards = -(-rows // self._config.rows_per_shard)
        after = random.Random(f"{point.name} {kind} {repeat}").randrange(shards) if point.often else 0
        count_in, go = self._scratch / uuid4().hex, self._scratch / f"{uuid4().hex}.go"
        wishes = wish(point, kind if kind in INSIDE else "pause", count_in, after=after)
        wishes[point.place]["until"] = str(go)
        ends: Counter[str] = Counter()
        config = replace(self._config, output=output)
        first = self._start(config, wishes)
        waking: Callable[[], Any] | None = None
        if kind not in INSIDE and (victim := _wait_for_pass(first, count_in, after)):
            waking = self._strike(kind, victim, first)
            go.touch()
        ended = first.how_it_ended() if first.wait_ended_or_frozen() else "frozen"
        ends[ended] += 1
        if ended != "done":
            ends[self._finish(config, ends)] += 1
        if waking is not None:
            waking()
        if ended == "frozen":
            first.wake()
            ends[f"{first.how_it_ended()} when woken" if first.wait_ended_or_frozen() else "frozen again"] += 1
        first.signal(signal.SIGKILL)
        return Played(judge(JobFolder(output), self._undisturbed), has_struck(count_in, after=after), ends)

    def _start(self, config: JobConfig, wishes: dict[str, Any]) -> Attempt:
        cluster = self._whole_cluster()
        self._wishes.write_text(json.dumps(wishes))
        return self._attempts.start(replace(config, ray_address=cluster.address), f"@{self._wishes}")

    def _finish(self, config: JobConfig, ends: Counter[str], wishes: dict[str, Any] | None = None) -> str:
        """Start attempts until one is done; how the last one ended."""
        ended = "not started"
        for _ in range(_MOST_ATTEMPTS):
            attempt = self._start(config, wishes or {})
            ended = attempt.how_it_ended() if attempt.wait_ended_or_frozen() else "frozen by itself"
            if ended == "done":
                break
            ends[ended] += 1
        return ended

    def _strike(self, kind: str, victim: int, driver: Attempt) -> Callable[[], Any] | None:
        """Make the failure happen to the process that waits; what ends it, if it lasts."""
        match kind:
            case "node killed":
                _signal_tree(self._node_of(victim), signal.SIGKILL)
            case "node frozen":
                node = self._node_of(victim)
                frozen = _signal_tree(node, signal.SIGSTOP)
                return lambda: [_signal(process, signal.SIGCONT) for process in frozen]
            case "node drained":
                self._drain(self._node_of(victim))
            case "driver killed":
                driver.signal(signal.SIGKILL)
            case "driver frozen":
                driver.signal(signal.SIGSTOP)
            case "cluster killed":
                self._end_cluster()
            case _:
                raise ValueError(kind)
        return None

    def _whole_cluster(self) -> Cluster:
        """The cluster with all of its nodes alive."""
        if self._cluster is None:
            self._wishes.write_text("{}")
            self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for node in [node for node in self._cluster.worker_nodes if not _is_alive(node)]:
            self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < WORKERS:
            self._cluster.add_node(num_cpus=1)  # for an engine, or for a task that feeds one
        return self._cluster

    def _end_cluster(self) -> None:
        """Kill every process of it at once."""
        if self._cluster is None:
            return
        for node in [*self._cluster.worker_nodes, self._cluster.head_node]:
            for started in [each for kind in node.all_processes.values() for each in kind]:
                _signal_tree(started.process.pid, signal.SIGKILL)
        self._cluster = None

    def _node_of(self, process: int) -> int:
        """The raylet under which a process runs."""
        assert self._cluster is not None
        raylets = {_raylet(node) for node in self._cluster.worker_nodes}
        return next(parent.pid for parent in psutil.Process(process).parents() if parent.pid in raylets)

    def _drain(self, raylet: int) -> None:
        """Give a node notice, and take it away when its time is over."""
        assert self._cluster is not None
        node = next(node for node in self._cluster.worker_nodes if _raylet(node) == raylet)
        until = time.time() + _GRACE_SECONDS
        accepted, why = GcsClient(address=self._cluster.gcs_address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "a spot notice", int(until * 1000)
        )
        assert accepted, why
        pid = os.fork()
        if pid == 0:  # so that the one who plays need not wait
            time.sleep(max(0.0, until - time.time()))
            _signal_tree(raylet, signal.SIGKILL)
            os._exit(0)


def _wait_for_pass(driver: Attempt, count_in: Path, after: int) -> int | None:
    """The process that waits at the point; None if the job ended before it came there."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if (process := struck_process(count_in, after=after)) is not None:
            return process
        if driver.has_ended(0.02):
            return None
    return None


def _raylet(node: Node) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _is_alive(node: Node) -> bool:
    return bool(node.all_processes["raylet"][0].process.poll() is None)


def _signal_tree(process: int, number: int) -> list[int]:
    """Send a signal to a process and all below it; who they are."""
    if not psutil.pid_exists(process):
        return []
    root = psutil.Process(process)
    tree = [root.pid, *(child.pid for child in root.children(recursive=True))]
    for each in tree:
        _signal(each, number)
    return tree


def _signal(process: int, number: int) -> None:
    if psutil.pid_exists(process):
        os.kill(process, number)
