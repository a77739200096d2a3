"""A Ray cluster of one node on this machine, with its job server, as `ray start` makes it."""

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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.faults.nodes import send, signal_tree

ROOT = Path(__file__).parents[3]
_START_SECONDS = 90.0


@contextmanager
def ray_cluster(log: Path, **environment: str) -> Iterator[str]:
    """The address of its job server inside the `with` block; after it none of its processes is left."""
    dashboard, client = free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    # Its sockets' paths may have 107 characters, which a test's own folder would take up.
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        "--dashboard-agent-listen-port=0", "--metrics-export-port=0", "--min-worker-port=0", "--max-worker-port=0",
        "--num-cpus=4", f"--object-store-memory={256 << 20}", f"--temp-dir={temporary}", "--disable-usage-stats",
    ]  # fmt: skip
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_worker_niceness": "0",  # a test that shares its machine would wait for ever
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("wb") as told:
        process = subprocess.Popen(command, env=inherited | settings, stdout=told, stderr=told, start_new_session=True)
    try:
        _wait_for(address, process, log)
        yield address
    finally:
        tree = signal_tree(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for each in tree[1:]:
            send(each, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody answers, if only to ask for a token."""
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
