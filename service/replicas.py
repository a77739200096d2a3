"""The replicas of each model as Ray Serve keeps them: how many there are, where they run, and whether there are any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from service.autoscaling import TokensInFlight
from service.config import ModelConfig, ServiceConfig
from service.models import Offer
from service.replica import Replica

READY_SECONDS = 1.0
"""For so long what was found out about the replicas is told again."""


def deployment_of(offer: Offer, config: ServiceConfig) -> serve.Application:
    """An autoscaling deployment of replicas of one model."""
    model = offer.config
    on_gpu = model.device.startswith("cuda")
    deployment: Any = serve.deployment(
        Replica,
        name=deployment_name(offer),
        max_ongoing_requests=most_ongoing(model),
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


def most_ongoing(model: ModelConfig) -> int:
    """Requests of one replica: it batches them itself, so it is given all that it can hold."""
    return model.max_running + model.max_waiting


def deployment_name(offer: Offer) -> str:
    """Of the model's deployment."""
    return f"model {offer.name}"


class Readiness:
    """Whether every model has a replica, or may have none while nobody asks.

    Args:
        app_of: the name of the Serve application that a model's deployment is part of.
    """

    def __init__(self, offered: Mapping[str, Offer], app_of: Callable[[Offer], str]) -> None:
        self._offered, self._app_of = offered, app_of
        self._looked, self._found = 0.0, dict[str, Any]()

    async def __call__(self) -> dict[str, Any]:
        """`{"ready": bool, "replicas": {model: running}}`."""
        if time.monotonic() - self._looked > READY_SECONDS:
            self._found = await asyncio.to_thread(self._look)
            self._looked = time.monotonic()
        return self._found

    def _look(self) -> dict[str, Any]:
        apps: Any = serve.status().applications
        running = {
            name: apps[self._app_of(offer)].deployments[deployment_name(offer)].replica_states.get("RUNNING", 0)
            for name, offer in self._offered.items()
        }
        ready = all(running[name] or not offer.config.min_replicas for name, offer in self._offered.items())
        return {"ready": ready, "replicas": running}
