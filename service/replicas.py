"""The replicas of each model as Ray Serve keeps them: how many there are, where they run, and whether there are any."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException

from monitoring.publishing import Publishing
from service.autoscaling import TokensInFlight
from service.config import ModelConfig, ServiceConfig
from service.models import Offer
from service.replica import Replica
from service.replica_meter import Published
from skipvision.metrics import REPLICAS, Registry

log = logging.getLogger("skipvision.service")

READY_SECONDS = 1.0
"""For so long what was found out about the replicas is told again."""

ANSWER_SECONDS = 2.0
"""For so long Ray Serve's controller is waited for. It takes some milliseconds, or is on a head that is away."""

LOST_SECONDS = 30.0
"""After so long a question to the controller is taken for lost, and it is asked again."""

_UNSEEN = (KeyError, TimeoutError, RayError, RayServeException)
"""Nothing is deployed yet, or the controller is away, or starts again."""

States = dict[str, dict[str, int]]
"""Of each model, how many replicas are in which of Ray Serve's states."""


def deployment_of(offer: Offer, config: ServiceConfig, publishing: Publishing) -> serve.Application:
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
    published = Published(model=offer.name, skip=offer.skip, retained_share=offer.retained_share, publishing=publishing)
    bound: serve.Application = deployment.bind(model, published)
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

    Replicas answer without Ray Serve's controller, which is on the head: while that is away the last that it said is
    taken for true.

    Args:
        app_of: the name of the Serve application that a model's deployment is part of.
    """

    def __init__(self, offered: Mapping[str, Offer], app_of: Callable[[Offer], str]) -> None:
        self._offered, self._app_of = offered, app_of
        self._looked, self._found = 0.0, dict[str, Any](ready=False, replicas={})
        self._lock = threading.Lock()
        self._asked = 0.0
        self._answer: Future[States] | None = None

    async def __call__(self) -> dict[str, Any]:
        """`{"ready": bool, "replicas": {model: running}}`."""
        if time.monotonic() - self._looked > READY_SECONDS:
            try:
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ask())), ANSWER_SECONDS)
            except _UNSEEN:
                log.warning("how many replicas there are could not be seen; as before is said", exc_info=True)
            self._looked = time.monotonic()
        return self._found

    def states(self) -> States:
        """How many replicas of each model are in which state.

        Raises:
            TimeoutError: the controller did not answer in time.
            KeyError, RayError, RayServeException: it cannot say.
        """
        return self._ask().result(ANSWER_SECONDS)

    def _ask(self) -> Future[States]:
        """One question at a time, however many want to know: Ray waits for a controller that is away, for ever, and
        each question would take a thread."""
        with self._lock:
            now = time.monotonic()
            if self._answer is None or self._answer.done() or now - self._asked > LOST_SECONDS:
                self._asked, self._answer = now, Future()
                threading.Thread(target=self._look, args=(self._answer,), name="replicas", daemon=True).start()
            return self._answer

    def _look(self, answer: Future[States]) -> None:
        try:
            apps: Any = serve.status().applications
            states = {
                name: dict(apps[self._app_of(offer)].deployments[deployment_name(offer)].replica_states)
                for name, offer in self._offered.items()
            }
            self._found = self._judged(states)
            answer.set_result(states)
        except Exception as error:  # for whoever waits
            answer.set_exception(error)

    def _judged(self, states: States) -> dict[str, Any]:
        running = {name: found.get("RUNNING", 0) for name, found in states.items()}
        ready = all(running[name] or not offer.config.min_replicas for name, offer in self._offered.items())
        return {"ready": ready, "replicas": running}


def record_replicas(ready: Readiness, offered: Mapping[str, Offer], registry: Registry) -> None:
    """Publish how many replicas there are, and should be: all that there are, and no fewer than the least."""
    try:
        states = ready.states()
    except _UNSEEN:
        log.warning("how many replicas there are could not be seen; looking again", exc_info=True)
        return
    for name, found in states.items():
        running, starting, all_of_them = found.get("RUNNING", 0), found.get("STARTING", 0), sum(found.values())
        numbers = {
            "wanted": max(all_of_them, offered[name].config.min_replicas),
            "running": running,
            "starting": starting,
            "other": all_of_them - running - starting,
        }
        for state, number in numbers.items():
            registry.set(REPLICAS, number, model=name, state=state)
