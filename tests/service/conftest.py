"""One real service for all tests of this folder: Ray Serve on a cluster of its own, asked over HTTP."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from skipvision.scenes import scene

PRICES = Path(__file__).parents[2] / "examples" / "prices.yaml"

KEYS = {name: f"sv-{name}-" + name[0] * 32 for name in ("full", "hasty", "metered", "narrow", "poor")}
TENANTS = {
    "full": {},
    "hasty": {"requests_per_minute": 2},
    "metered": {"tokens_per_minute": 2_000},
    "narrow": {"models": ["another"]},
    "poor": {"tokens_per_day": 400},
}


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    address: str
    cluster: str
    log: Path
    metrics: str
    """Address of its numbers."""

    def client(self, tenant: str = "full") -> httpx.Client:
        return httpx.Client(base_url=self.address, headers={"Authorization": f"Bearer {KEYS[tenant]}"}, timeout=120)

    def in_cluster(self, code: str) -> str:
        """What some Python prints that runs on the service's cluster, where `replicas` are the model's."""
        head = f"""
            import ray
            from ray import serve
            ray.init({self.cluster!r}, log_to_driver=False, logging_level="ERROR")
            replicas = serve.get_deployment_handle("model zoo", "skipvision zoo")
            """
        script = textwrap.dedent(head) + textwrap.dedent(code)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
        return ran.stdout


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "max_body_mib": 4,
        "models": [{"max_running": 8}],
        "prices": str(PRICES),
        "tenants": [
            {"name": name, "key_files": [_file(folder / name, KEYS[name])], **limits}
            for name, limits in TENANTS.items()
        ],
    }
    with running_service(folder, settings) as service:
        yield service


@contextmanager
def local_cluster() -> Iterator[str]:
    """A Ray cluster on this machine, and its address."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 6, "include_dashboard": False})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def running_service(folder: Path, settings: dict[str, Any]) -> Iterator[Service]:
    """A service inside the `with` block, on a cluster of its own."""
    with local_cluster() as cluster:
        port, metrics_port = free_port(), free_port()
        file, log = folder / "service.yaml", folder / "log"
        ports = {"port": port, "metrics_port": metrics_port}
        file.write_text(yaml.safe_dump({"ray_address": cluster, **ports, **settings}))
        command = [sys.executable, "-m", "skipvision.cli", "serve", str(file)]
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
            try:
                wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
                yield Service(f"http://127.0.0.1:{port}", cluster, log, f"http://127.0.0.1:{metrics_port}/metrics")
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture(scope="session")
def picture_url() -> str:
    """A `data:` URL of a picture."""
    encoded = io.BytesIO()
    scene(3).render(224).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def _file(path: Path, key: str) -> str:
    path.write_text(f"# {path.name}\n{key}\n")
    return str(path)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=5).json().get("ready"):
                return
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"the service is not ready after four minutes: {log.read_text()}")
