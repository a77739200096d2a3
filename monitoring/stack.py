"""Prometheus and Alertmanager as processes of this machine, with the committed rules and ports of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from skipvision.errors import ConfigError

HERE = Path(__file__).parent
CONFIG, RULES = HERE / "config", HERE / "rules"

_START_SECONDS = 240.0
_END_SECONDS = 90.0

Quicker = Callable[[dict[str, Any]], None]
"""Changes the content of a rule file before it is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Where the processes listen, on 127.0.0.1."""

    hub: int
    prometheus: int
    alertmanager: int
    webhook: int


@contextmanager
def watching(
    folder: Path, ports: Ports, *, scrape_seconds: int = 5, change_rules: Quicker = lambda _: None
) -> Iterator[None]:
    """Prometheus, which reads the hub, and Alertmanager, which it tells, inside the `with` block.

    Args:
        folder: an empty one, for their files.
        change_rules: see `Quicker`.

    Raises:
        ConfigError: one of them is not installed, or does not start.
    """
    prometheus, alertmanager = program("prometheus"), program("alertmanager", "prometheus-alertmanager")
    rules = [_rule_file(path, folder, change_rules) for path in sorted(RULES.glob("*.yml"))]
    config = _written(folder / "prometheus.yml", _prometheus(ports, rules, scrape_seconds))
    alerting = _written(folder / "alertmanager.yml", _alertmanager(ports))
    at = f"127.0.0.1:{ports.alertmanager}"
    with ExitStack() as stack:
        stack.enter_context(
            running(
                [alertmanager, f"--config.file={alerting}", f"--storage.path={folder / 'alerts'}",
                 f"--web.listen-address={at}", "--cluster.listen-address="],
                folder / "alertmanager.log", f"http://{at}/-/ready",
            )
        )  # fmt: skip
        at = f"127.0.0.1:{ports.prometheus}"
        stack.enter_context(
            running(
                [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'samples'}",
                 f"--web.listen-address={at}"],
                folder / "prometheus.log", f"http://{at}/-/ready",
            )
        )  # fmt: skip
        yield


def program(*names: str) -> str:
    """The path of a program, by any of its names.

    Raises:
        ConfigError: it is not installed.
    """
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    raise ConfigError(
        f"{names[0]} is not installed; on Debian: apt-get install prometheus prometheus-alertmanager, elsewhere from "
        "prometheus.io"
    )


def _prometheus(ports: Ports, rules: Sequence[Path], scrape_seconds: int) -> dict[str, Any]:
    config = _content(CONFIG / "prometheus.yml")
    config["global"] = {"scrape_interval": f"{scrape_seconds}s", "evaluation_interval": f"{scrape_seconds}s"}
    config["rule_files"] = [str(path) for path in rules]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{ports.alertmanager}"]
    config["scrape_configs"] = [each for each in config["scrape_configs"] if each["job_name"] == "skipvision"]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{ports.hub}"]
    return config


def _alertmanager(ports: Ports) -> dict[str, Any]:
    config = _content(CONFIG / "alertmanager.yml")
    config["route"] |= {"group_wait": "1s", "group_interval": "5s"}
    config["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{ports.webhook}/alerts"
    return config


def _rule_file(path: Path, folder: Path, change: Quicker) -> Path:
    content = _content(path)
    change(content)
    return _written(folder / path.name, content)


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def _written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@contextmanager
def running(
    command: Sequence[str], log: Path, ready: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process inside the `with` block, from when it answers at `ready`; it is asked to end after the block.

    Raises:
        ConfigError: it ends before it is ready, or takes longer than a few minutes.
    """
    with log.open("w") as out:
        process = started(command, out, environment)
        try:
            if ready is not None:
                _wait_until_ready(ready, process, log, Path(command[0]).name)
            yield process
        finally:
            ended(process)


def started(command: Sequence[str], out: IO[Any], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """A process in a session of its own: an interrupt from the keyboard is for whoever started it alone, and they end
    one after the other."""
    return subprocess.Popen(
        command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}, start_new_session=True
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and have it killed if it takes longer than it may."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    last = "\n".join(log.read_text().splitlines()[-3:])
    raise ConfigError(f"{name} does not start: {last}")
