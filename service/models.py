"""Models that a service offers: checked before anything starts, and described to whoever asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.config import ModelConfig
from skipvision.errors import ConfigError
from skipvision.families.checkpoint import (
    DEFAULT_MODEL,
    check_vision_side,
    choose_skip,
    context_tokens,
    read_config,
    resolve_model,
    short_name,
    visual_tokens,
)
from skipvision.method.plan import plan_prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One model, as requests know it."""

    name: str
    config: ModelConfig
    location: str
    """Folder or hub id to load from."""
    skip: str
    """What is left out of requests that do not say."""
    visual_tokens: int
    """Of a square image at full size."""
    context_tokens: int
    retained_share: float
    """Of an image's visual tokens, of requests that do not say."""
    created: int

    def described(self, adapter: str | None = None) -> dict[str, Any]:
        """As `/v1/models` lists it."""
        return {
            "id": self.name if adapter is None else f"{self.name}:{adapter}",
            "object": "model",
            "created": self.created,
            "owned_by": "skipvision",
            "skipvision": {
                "skip": self.skip,
                "visual_tokens": self.visual_tokens,
                "context_tokens": self.context_tokens,
                "adapters": [*self.config.adapters] if adapter is None else [],
            },
        }


def offers(models: Iterable[ModelConfig]) -> dict[str, Offer]:
    """What the service offers, by name. Reads the checkpoints' config files, and loads nothing.

    Raises:
        ConfigError: a model is not there, its setting does not fit it, or two have one name.
    """
    offered: dict[str, Offer] = {}
    for config in models:
        offer = _offer(config)
        if offer.name in offered:
            raise ConfigError(f"two models are called {offer.name}; set `name` for one of them")
        offered[offer.name] = offer
    return offered


def find(offered: Mapping[str, Offer], name: str) -> tuple[Offer, str | None] | None:
    """The model of that name and the adapter that the name asks for. None: there is none."""
    model, _, adapter = name.partition(":")
    offer = offered.get(model)
    if offer is None or (adapter and adapter not in offer.config.adapters) or name.endswith(":"):
        return None
    return offer, adapter or None


def _offer(config: ModelConfig) -> Offer:
    location = resolve_model(config.model or DEFAULT_MODEL)
    if os.path.isdir(location):
        location = os.path.abspath(location)  # replicas have a working directory of their own
    checkpoint = read_config(location)
    skip = choose_skip(config.skip, checkpoint)
    whole = visual_tokens(checkpoint)
    plan = plan_prompt(skip, text_tokens=0, visual_tokens=(whole,))
    check_vision_side(skip, checkpoint)
    name = config.name or short_name(config.model or DEFAULT_MODEL)
    if ":" in name:
        raise ConfigError(f"model name {name!r} holds a colon, after which requests name an adapter; set another name")
    return Offer(
        name=name,
        config=replace(config, model=location),
        location=location,
        skip=skip.describe(),
        visual_tokens=whole,
        context_tokens=context_tokens(checkpoint),
        retained_share=plan.retained_tokens / plan.visual_tokens,
        created=int(time.time()),
    )
