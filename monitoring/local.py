"""`make monitor`: a service and a job with everything that watches them, on one machine, until it is interrupted.

One Ray, one hub that both tell, Prometheus and Alertmanager with the committed rules, a receiver that prints alerts as
they come, and Grafana with the dashboards where it is installed. Pictures are rendered, and asked about without end.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import signal
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from monitoring.stack import HERE, Ports, ended, running, started, watching
from skipvision.errors import ConfigError
from skipvision.scenes import scene

PRICES = HERE.parent / "examples" / "prices.yaml"
QUESTIONS = ("Describe the image.", "How many shapes are there?", "What is at the top left?")
COMMAND = [sys.executable, "-m", "skipvision.cli"]
IMAGES = 400
COMPARED_SHARE = 0.1
QUIET = {
    "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}  # fmt: skip
"""For Ray: processes are given their share of the cores, and say what matters."""


def main() -> int:
    """Run everything, print where it is, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="skipvision-monitor-"))
    hub, prometheus, alertmanager, webhook, api, grafana = free_ports(6)
    ports = Ports(hub=hub, prometheus=prometheus, alertmanager=alertmanager, webhook=webhook)
    try:
        with ExitStack() as stack:
            stack.enter_context(alerts_printed(webhook))
            stack.enter_context(watching(folder, ports))
            print("starting Ray, a service and a job; about a minute …", flush=True)
            stack.enter_context(work(folder, hub_port=hub, api_port=api))
            has_grafana = stack.enter_context(boards(folder, grafana, prometheus))
            _tell(folder, ports, api, grafana if has_grafana else None)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            print("stopping …", flush=True)
    except ConfigError as error:
        print(f"make monitor: {error}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def work(folder: Path, *, hub_port: int, api_port: int) -> Iterator[None]:
    """A service that is asked and jobs one after the other, told to one hub."""
    render(folder / "images", IMAGES)
    stopped = threading.Event()
    with service(folder, hub_port=hub_port, api_port=api_port) as ray_address:
        threads = [
            threading.Thread(target=ask, args=[f"http://127.0.0.1:{api_port}", stopped]),
            threading.Thread(target=run_jobs, args=[folder, ray_address, stopped]),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join()


@contextmanager
def service(folder: Path, *, hub_port: int, api_port: int) -> Iterator[str]:
    """A service on a Ray of its own, whose address is given."""
    ray_port = free_ports(1)[0]
    address = f"127.0.0.1:{ray_port}"
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=8",
            "--node-ip-address=127.0.0.1", f"--port={ray_port}", "--include-dashboard=false"]  # fmt: skip
    settings = {
        "ray_address": address, "port": api_port, "metrics_port": hub_port, "prices": str(PRICES),
        "metrics_totals": str(folder / "totals.json"), "models": [{"max_replicas": 2}],
    }  # fmt: skip
    (folder / "service.yaml").write_text(yaml.safe_dump(settings))
    serve = [*COMMAND, "serve", str(folder / "service.yaml")]
    with running(head, folder / "ray.log", environment=QUIET):
        _wait_for_port(ray_port)
        with running(serve, folder / "service.log", f"http://127.0.0.1:{api_port}/readyz", QUIET):
            yield address


def render(folder: Path, images: int) -> None:
    """Pictures to caption, and a file that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        scene(number).render(224).save(folder / f"{number:04d}.png")
    (folder / "broken.png").write_bytes(b"no image")


def ask(address: str, stopped: threading.Event, answered: list[tuple[int, dict[str, Any]]] | None = None) -> None:
    """Ask about pictures, one after the other; every tenth question is wrong, every fifth brings its own setting.

    Args:
        answered: takes the status and the body of each answer.
    """
    for number in count():
        if stopped.wait(0.2):
            return
        answer = _asked(address, _question(number))
        if answered is not None:
            answered.append(answer)


def _question(number: int) -> dict[str, Any]:
    encoded = io.BytesIO()
    scene(number % 50).render(224).save(encoded, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]},
    ]
    body = {"model": "zoo", "messages": [{"role": "user", "content": parts}]}
    own = {"skipvision": {"skip": "off"}} if number % 5 == 0 else {}
    return {**body, **own, "max_tokens": 0 if number % 10 == 9 else 40}


def _asked(address: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def job_command(folder: Path, ray_address: str, output: str) -> list[str]:
    """Captions the images in a folder, on a Ray that is there."""
    return [
        *COMMAND, "run", "--input", str(folder / "images"), "--output", str(folder / output), "--name", "scenes",
        "--ray-address", ray_address, "--prices", str(PRICES), "--rows-per-shard", "32",
        "--compared-share", str(COMPARED_SHARE),
    ]  # fmt: skip


def run_jobs(folder: Path, ray_address: str, stopped: threading.Event) -> None:
    """Caption the same images again and again, each time into a folder of its own."""
    for number in count():
        with (folder / "job.log").open("a") as log:
            job = started(job_command(folder, ray_address, f"job-{number}"), log, QUIET)
            while job.poll() is None:
                if stopped.wait(0.5):
                    ended(job)
                    return
        if stopped.wait(5):
            return


@contextmanager
def alerts_printed(port: int) -> Iterator[list[dict[str, Any]]]:
    """A receiver of Alertmanager's webhooks, which prints what comes; the list holds all that came."""
    came: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]:
                came.append(alert)
                labels, said = alert["labels"], alert["annotations"]["summary"]
                print(f"{alert['status']:8} {labels['severity']:8} {labels['alertname']}: {said}", flush=True)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    threading.Thread(target=server.serve_forever, name="webhook", daemon=True).start()
    try:
        yield came
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def boards(folder: Path, port: int, prometheus: int) -> Iterator[bool]:
    """Grafana with the dashboards, where it is installed: whether it is."""
    grafana = shutil.which("grafana-server") or shutil.which("grafana")
    if grafana is None:
        yield False
        return
    home = next((path for path in ("/usr/share/grafana", "/opt/grafana") if Path(path).is_dir()), str(folder))
    for kind, content in _provisioning(prometheus).items():
        (folder / "grafana" / kind).mkdir(parents=True)
        (folder / "grafana" / kind / "skipvision.yaml").write_text(yaml.safe_dump(content))
    environment = {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1", "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_PROVISIONING": str(folder / "grafana"), "GF_PATHS_DATA": str(folder / "grafana-data"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_ANONYMOUS_ORG_ROLE": "Admin",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
    }  # fmt: skip
    command = [grafana, *(["server"] if Path(grafana).name == "grafana" else []), f"--homepath={home}"]
    with running(command, folder / "grafana.log", f"http://127.0.0.1:{port}/api/health", environment):
        yield True


def _provisioning(prometheus: int) -> dict[str, Any]:
    """What Grafana reads when it starts: where the numbers are, and the boards."""
    source = {"name": "Prometheus", "type": "prometheus", "url": f"http://127.0.0.1:{prometheus}", "isDefault": True}
    boards = {"name": "skipvision", "options": {"path": str(HERE / "dashboards" / "generated")}}
    return {
        "datasources": {"apiVersion": 1, "datasources": [source]},
        "dashboards": {"apiVersion": 1, "providers": [boards]},
    }


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for_port(port: int) -> None:
    for _ in range(240):
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.5)
    raise ConfigError("Ray does not start; its log says why")


def _tell(folder: Path, ports: Ports, api: int, grafana: int | None) -> None:
    at = "http://127.0.0.1"
    print(f"""
service       {at}:{api}
numbers       {at}:{ports.hub}/metrics
Prometheus    {at}:{ports.prometheus}/alerts
Alertmanager  {at}:{ports.alertmanager}
Grafana       {f"{at}:{grafana}/dashboards" if grafana else "not installed; the boards as pictures:"}
              {sys.executable} -m monitoring.preview --prometheus {at}:{ports.prometheus} --output {folder / "boards"}
logs          {folder}

Alerts are printed as they come. Interrupt to stop.
""", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
