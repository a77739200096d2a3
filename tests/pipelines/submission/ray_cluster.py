"""A Ray cluster on this machine, with its job server, as `ray start` makes it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.faults.nodes import send, signal_tree

ROOT = Path(__file__).parents[3]
_START_SECONDS = 90.0


@contextmanager
def ray_cluster(log: Path, *, head_cpus: int = 4, worker_cpus: Sequence[int] = (), **environment: str) -> Iterator[str]:
    """The address of its job server inside the `with` block; after it none of its processes is left.

    Args:
        head_cpus: permissions, not cores; so are those of the workers.
        worker_cpus: of each node beside the head.
    """
    gcs, dashboard, client = free_ports(3)
    address = f"http://127.0.0.1:{dashboard}"
    # Its sockets' paths may have 107 characters, which a test's own folder would take up.
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    head = [
        "--head", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--num-cpus={head_cpus}", f"--temp-dir={temporary}",
    ]  # fmt: skip
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",  # what a node says is read while it runs
        "RAY_worker_niceness": "0",  # a test that shares its machine would wait for ever
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    nodes = list[subprocess.Popen[bytes]]()
    try:
        nodes.append(_start(head, inherited | settings, log))
        _wait_until(lambda: _answers(address), nodes, log)
        for cpus in worker_cpus:
            nodes.append(_start([f"--address=127.0.0.1:{gcs}", f"--num-cpus={cpus}"], inherited | settings, log))
            # One after the other: of two that started at once, one was seen to wait for itself in vain.
            _wait_until(lambda: log.read_text().count("Ray runtime started.") == len(nodes), nodes, log)
        yield address
    finally:
        _stop(nodes)
        shutil.rmtree(temporary, ignore_errors=True)


def _start(options: Sequence[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options, "--dashboard-agent-listen-port=0",
        "--metrics-export-port=0", "--min-worker-port=0", "--max-worker-port=0",
        f"--object-store-memory={256 << 20}", "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("ab") as told:
        return subprocess.Popen(command, env=environment, stdout=told, stderr=told, start_new_session=True)


def _stop(nodes: Sequence[subprocess.Popen[bytes]]) -> None:
    trees = [signal_tree(node.pid, signal.SIGTERM) for node in reversed(nodes)]
    for node in nodes:
        try:
            node.wait(timeout=15)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
    for each in [process for tree in trees for process in tree[1:]]:
        send(each, signal.SIGKILL)


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until(holds: Callable[[], bool], nodes: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while not holds():
        assert all(node.poll() is None for node in nodes), log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def _answers(address: str) -> bool:
    """Whether somebody does, if only to ask for a token."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
