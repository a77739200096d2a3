"""A service on this machine, or on a cluster that runs already, for as long as this process lives."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from service.application import application
from service.config import ServiceConfig
from service.models import offers
from skipvision.errors import ConfigError

APP = "skipvision"
_SLOTS = 6
"""CPUs that a local Ray claims to have, at least: permissions, not cores."""


@contextmanager
def serving(config: ServiceConfig) -> Iterator[str]:
    """A service inside the `with` block, at the address that is given; requests that are being answered are finished
    before it ends.

    Raises:
        ConfigError: a setting is wrong, or no cluster answers at `ray_address`; nothing was started.
    """
    built = application(config)
    is_ours = _connect(config)
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=config.host, port=config.port, keep_alive_timeout_s=60),
        )
        serve.run(built, name=APP, route_prefix="/")
        yield f"http://{config.host}:{config.port}"
    finally:
        serve.delete(APP)  # waits for what is being answered, which `shutdown` does not
        if is_ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def run(config: ServiceConfig) -> None:
    """Serve until SIGTERM or an interrupt from the keyboard."""
    stopped = threading.Event()
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
    wanted = 1 + sum(model.max_replicas * model.cpus for model in config.models)
    ray.init(
        "local", num_cpus=max(_SLOTS, int(wanted + 1)), include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    return True


def _tell(config: ServiceConfig, address: str) -> None:
    """Where it is, and a line that asks it something."""
    model = next(iter(offers(config.models)))
    key = ' -H "Authorization: Bearer $SKIPVISION_KEY"' if config.tenants else ""
    body = (
        f'{{"model": "{model}", "messages": [{{"role": "user", "content": [{{"type": "text", "text": '
        f'"What can you do?"}}]}}]}}'
    )
    print(f"skipvision answers at {address}: a page to try it, {address}/docs, and OpenAI's API under {address}/v1\n")
    print(f"    curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'\n", flush=True)
