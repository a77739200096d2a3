"""The application that Ray Serve runs: a door, and an autoscaling deployment of replicas for each model.

A Serve config file names it, with the same settings as `skipvision serve` reads:

    applications:
      - name: skipvision
        import_path: service:application
        args: {models: [{model: /models/llava, skip: 100/156, max_replicas: 4}]}
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from service.app import build_app
from service.autoscaling import TokensInFlight
from service.config import ModelConfig, ServiceConfig
from service.door import Door
from service.models import Offer, offers
from service.replica import Replica
from skipvision.config import check

READY_SECONDS = 1.0
"""For so long what was found out about the replicas is told again."""


def application(settings: Mapping[str, Any] | ServiceConfig) -> serve.Application:
    """Build the application.

    Raises:
        ConfigError: a setting is wrong, or a model is not there or does not fit its settings.
    """
    config = settings if isinstance(settings, ServiceConfig) else check(settings, ServiceConfig, origin="args")
    offered = offers(config.models)
    replicas = {name: _replicas(offer, config) for name, offer in offered.items()}
    bound: serve.Application = _door(config).bind(config, offered, replicas)
    return bound


class ServedDoor:
    """A `Door` as Ray Serve starts it."""

    def __init__(
        self, config: ServiceConfig, offered: Mapping[str, Offer], replicas: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        _log_to_stderr()
        self._door = Door(config, offered, replicas)
        self._looked, self._found = 0.0, dict[str, Any]()

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self._door, self._ready)

    async def _ready(self) -> dict[str, Any]:
        if time.monotonic() - self._looked > READY_SECONDS:
            self._found = await asyncio.to_thread(self._look)
            self._looked = time.monotonic()
        return self._found

    def _look(self) -> dict[str, Any]:
        deployments: Any = serve.status().applications[serve.get_replica_context().app_name].deployments
        running = {
            name: deployments[_name(offer)].replica_states.get("RUNNING", 0)
            for name, offer in self._door.offered.items()
        }
        ready = all(running[name] or not offer.config.min_replicas for name, offer in self._door.offered.items())
        return {"ready": ready, "replicas": running}


def _log_to_stderr() -> None:
    """The service's own lines, as they are: one JSON object each, among the logs of its Ray worker."""
    log = logging.getLogger("skipvision.service")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.StreamHandler())


def _door(config: ServiceConfig) -> Any:
    return serve.deployment(
        serve.ingress()(ServedDoor),
        name="door",
        num_replicas=1,  # it alone counts what tenants use
        max_ongoing_requests=config.max_queued + sum(_most_ongoing(model) for model in config.models),
        graceful_shutdown_timeout_s=config.drain_seconds,
        ray_actor_options={"num_cpus": 1},
    )


def _replicas(offer: Offer, config: ServiceConfig) -> serve.Application:
    model = offer.config
    on_gpu = model.device.startswith("cuda")
    deployment: Any = serve.deployment(
        Replica,
        name=_name(offer),
        max_ongoing_requests=_most_ongoing(model),
        max_queued_requests=config.max_queued,
        autoscaling_config=_autoscaling(model),
        graceful_shutdown_timeout_s=config.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        ray_actor_options={"num_gpus": 1, "num_cpus": 0} if on_gpu else {"num_cpus": model.cpus},
    )
    bound: serve.Application = deployment.bind(model)
    return bound


def _autoscaling(model: ModelConfig) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=model.min_replicas,
        max_replicas=model.max_replicas,
        metrics_interval_s=1.0,
        look_back_period_s=3.0,
        upscale_delay_s=model.upscale_seconds,
        downscale_delay_s=model.downscale_seconds,
        downscale_to_zero_delay_s=model.zero_seconds,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=TokensInFlight, policy_kwargs={"target_tokens": model.target_tokens}
        ),
    )


def _most_ongoing(model: ModelConfig) -> int:
    """Requests of one replica: it batches them itself, so it is given all that it can hold."""
    return model.max_running + model.max_waiting


def _name(offer: Offer) -> str:
    """Of the model's deployment."""
    return f"model {offer.name}"
