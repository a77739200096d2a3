"""A real Ray cluster of a head and some workers on this machine, and what can happen to it from outside."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from benchmarks.faults.fittings import PLAIN, Fitting
from benchmarks.faults.stores import environment
from benchmarks.machine import ROOT
from skipvision.failpoints import VARIABLE

WORKERS = 3
GRACE_SECONDS = 12.0
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


class Nodes:
    """The cluster; there is none until one is needed.

    Args:
        wishes: the file in which its processes look for their failpoints.
    """

    def __init__(self, wishes: Path) -> None:
        self._wishes = wishes
        self._cluster: Cluster | None = None
        self._fitting = PLAIN

    @contextmanager
    def running(self) -> Iterator[None]:
        """After the `with` block none of its processes is left."""
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        with environment({**_SETTINGS, VARIABLE: f"@{self._wishes}"}):
            try:
                yield
            finally:
                self.kill_all()

    @contextmanager
    def fitted(self, fitting: Fitting) -> Iterator[None]:
        """Inside the `with` block there is a cluster of its own, whose worker nodes are fitted with this."""
        if fitting is PLAIN:
            yield
            return
        self.kill_all()
        self._fitting = fitting
        try:
            yield
        finally:
            self.kill_all()
            self._fitting = PLAIN

    def address(self) -> str:
        """Of the cluster, with all of its nodes alive."""
        if self._cluster is None:
            self._wishes.write_text("{}")
            head = {"num_cpus": 0, "include_dashboard": False, **self._fitting.head()}
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for node in [node for node in self._cluster.worker_nodes if not _is_alive(node)]:
            self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < WORKERS:
            with self._fitting.worker() as fitted:
                # For an engine and a task that feeds it: a driver that is frozen keeps what it has, and another one
                # needs as much again beside it, on any two nodes that are left.
                self._cluster.add_node(num_cpus=2, **fitted)
        return str(self._cluster.address)

    def kill_all(self) -> None:
        """Kill every process of it at once."""
        for node in [*self._cluster.worker_nodes, self._cluster.head_node] if self._cluster else ():
            for started in [each for kind in node.all_processes.values() for each in kind]:
                signal_tree(started.process.pid, signal.SIGKILL)
        self._cluster = None
        self._fitting.remove()

    def raylets(self) -> list[int]:
        """Of the worker nodes that live: the process at the root of each."""
        nodes = self._cluster.worker_nodes if self._cluster else ()
        return sorted(_raylet(node) for node in nodes if _is_alive(node))

    def of(self, process: int) -> int:
        """The raylet of a worker node under which a process runs."""
        assert self._cluster is not None
        raylets = set(self.raylets())
        return next(parent.pid for parent in psutil.Process(process).parents() if parent.pid in raylets)

    def drain(self, raylet: int) -> None:
        """Give a node notice, and take it away when its time is over."""
        assert self._cluster is not None
        node = next(node for node in self._cluster.worker_nodes if _raylet(node) == raylet)
        until = time.time() + GRACE_SECONDS
        accepted, why = GcsClient(address=self._cluster.gcs_address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "a spot notice", int(until * 1000)
        )
        assert accepted, why
        pid = os.fork()
        if pid == 0:  # so that the one who plays need not wait
            time.sleep(max(0.0, until - time.time()))
            signal_tree(raylet, signal.SIGKILL)
            os._exit(0)


def _raylet(node: Node) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _is_alive(node: Node) -> bool:
    return bool(node.all_processes["raylet"][0].process.poll() is None)


def signal_tree(process: int, number: int) -> list[int]:
    """Send a signal to a process and all below it; who they are."""
    if not psutil.pid_exists(process):
        return []
    root = psutil.Process(process)
    tree = [root.pid, *(child.pid for child in root.children(recursive=True))]
    for each in tree:
        send(each, number)
    return tree


def send(process: int, number: int) -> None:
    """Send a signal to a process, if there is one."""
    if psutil.pid_exists(process):
        os.kill(process, number)
