"""The application that a Serve config file names: a door behind Ray Serve's proxies, and each model's replicas.

The settings are those that `skipvision serve` reads, which needs no proxies and listens by itself (see `running`):

    applications:
      - name: skipvision
        import_path: service:application
        args: {models: [{model: /models/llava, skip: 100/156, max_replicas: 4}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from monitoring.publishing import Publishing
from service.app import build_app
from service.config import ServiceConfig
from service.door import Door, log_to_stderr
from service.models import Offer, offers
from service.replicas import Readiness, deployment_of, most_ongoing, record_replicas
from skipvision.config import check
from skipvision.tracing import check_installed


def application(settings: Mapping[str, Any] | ServiceConfig) -> serve.Application:
    """Build the application.

    Raises:
        ConfigError: a setting is wrong, or a model is not there or does not fit its settings.
    """
    config = settings if isinstance(settings, ServiceConfig) else check(settings, ServiceConfig, origin="args")
    check_installed(config.traces)
    offered, publishing = offers(config.models), config.publishing()
    replicas = {name: deployment_of(offer, config, publishing) for name, offer in offered.items()}
    bound: serve.Application = _door(config).bind(config, offered, replicas, publishing)
    return bound


class ServedDoor:
    """A `Door` as Ray Serve starts it."""

    def __init__(
        self,
        config: ServiceConfig,
        offered: Mapping[str, Offer],
        replicas: Mapping[str, DeploymentHandle[Any]],
        publishing: Publishing,
    ) -> None:
        log_to_stderr()
        numbers = publishing.numbers()
        self._ready = Readiness(offered, lambda _: serve.get_replica_context().app_name)
        look = partial(record_replicas, self._ready, offered, numbers.registry)
        self._door = Door(config, offered, replicas, numbers, look)

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self._door, self._ready)


def _door(config: ServiceConfig) -> Any:
    return serve.deployment(
        serve.ingress()(ServedDoor),
        name="door",
        num_replicas=1,  # it alone counts what tenants use
        max_ongoing_requests=config.max_queued + sum(most_ongoing(model) for model in config.models),
        graceful_shutdown_timeout_s=config.drain_seconds,
        ray_actor_options={"num_cpus": 1},
    )
