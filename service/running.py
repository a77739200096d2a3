"""A service on this machine, or on a cluster that runs already, for as long as this process lives."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.handle import DeploymentHandle

from monitoring.hub import address_of, find_hub
from monitoring.publishing import Publishing
from service.app import build_app
from service.config import ServiceConfig
from service.door import Door, log_to_stderr
from service.listening import bound_socket, listening
from service.models import Offer, offers
from service.replicas import Readiness, deployment_of, record_replicas
from skipvision.errors import ConfigError
from skipvision.scenes import scene
from skipvision.tracing import check_installed

_SLOTS = 6
"""CPUs that a local Ray claims to have, at least: permissions, not cores."""


@contextmanager
def serving(config: ServiceConfig) -> Iterator[str]:
    """A service inside the `with` block, at the address that is given; requests that are being answered are finished
    before it ends.

    The door is in this process, so that a request passes Ray once.

    Raises:
        ConfigError: a setting is wrong, the address is taken, or no cluster answers at `ray_address`; nothing was
            started.
    """
    check_installed(config.traces)
    offered, publishing = offers(config.models), config.publishing()
    with bound_socket(config.host, config.port) as bound:
        is_ours = _connect(config)
        try:
            numbers = publishing.numbers()
            serve.start(proxy_location=ProxyLocation.Disabled)
            replicas = _deploy(offered, config, publishing)
            ready = Readiness(offered, app_name)
            look = partial(record_replicas, ready, offered, numbers.registry)
            app = build_app(Door(config, offered, replicas, numbers, look), ready)
            with listening(app, bound, drain_seconds=config.drain_seconds):
                yield f"http://{config.host}:{config.port}"
        finally:
            for offer in offered.values():
                serve.delete(app_name(offer))
            if is_ours:
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def app_name(offer: Offer) -> str:
    """Of the Serve application that holds one model's replicas."""
    return f"skipvision {offer.name}"


def _deploy(
    offered: Mapping[str, Offer], config: ServiceConfig, publishing: Publishing
) -> dict[str, DeploymentHandle[Any]]:
    """Start the replicas of all models at once, each model an application of its own."""
    targets = [
        serve.RunTarget(deployment_of(offer, config, publishing), name=app_name(offer), route_prefix=None)
        for offer in offered.values()
    ]
    return dict(zip(offered, serve.run_many(targets), strict=True))


def run(config: ServiceConfig) -> None:
    """Serve until SIGTERM or an interrupt from the keyboard."""
    stopped = threading.Event()
    log_to_stderr()
    with serving(config) as address:
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())  # Ray has put its own there, which leaves at once
        _tell(config, address)
        try:
            stopped.wait()
        except KeyboardInterrupt:
            print("finishing what is being answered …", flush=True)


def _connect(config: ServiceConfig) -> bool:
    """Whether Ray was started for this service."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if config.ray_address is not None:
        try:
            ray.init(config.ray_address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster answers at {config.ray_address}: {error}") from error
        return False
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray's 15 leaves a replica a thirtieth of a core beside one other busy process.
    os.environ.setdefault("RAY_worker_niceness", "0")
    wanted = sum(model.max_replicas * model.cpus for model in config.models)
    ray.init(
        "local", num_cpus=max(_SLOTS, int(wanted + 1)), include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    return True


def _tell(config: ServiceConfig, address: str) -> None:
    """Where it is, and a line that asks it something."""
    model = next(iter(offers(config.models)))
    key = ' -H "Authorization: Bearer $SKIPVISION_KEY"' if config.tenants else ""
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_picture()}"}},
        {"type": "text", "text": "Describe the image."},
    ]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": parts}]})
    print(f"skipvision answers at {address}: a page to try it, {address}/docs, and OpenAI's API under {address}/v1\n")
    if (hub := find_hub()) is not None:  # which may be one that was there before, with a port of its own
        print(f"metrics at {address_of(hub)}\n")
    print(f"    curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'\n", flush=True)


def _picture() -> str:
    """Something to ask about that fits on a line: a PNG of few colours, in base64."""
    encoded = io.BytesIO()
    scene(3).render(224).quantize(4).save(encoded, "PNG", optimize=True)
    return base64.b64encode(encoded.getvalue()).decode()
