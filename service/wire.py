"""What goes between a door and a replica: plain values, which pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skipvision.conversation import Conversation
from skipvision.engine import Sampling
from skipvision.engine.request import FinishReason
from skipvision.errors import CapacityError, InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A request, its images prepared."""

    request_id: str
    conversation: Conversation
    images: tuple[np.ndarray, ...]
    """Prepared pixels, (3, height, width) uint8 each."""
    sampling: Sampling
    answers: int = 1
    skip: str | None = None
    """As `SkipConfig.parse` reads it. None: the replica's own."""
    adapter: str | None = None
    grammar: str | None = None
    """What the answer must keep to, as `json_grammar` writes it."""
    token_maps: bool = False
    """Tell which tokens of each image were kept."""
    tokens: int
    """About how many it may take, for the scaling of replicas."""


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """A token of an answer and how likely it was."""

    text: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of one of the answers."""

    index: int
    text: str
    output_tokens: int
    tokens: tuple[SpokenToken, ...] | None
    """None: the question did not ask for log-probabilities."""
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a question took; told when all is said."""

    prompt_tokens: int
    text_tokens: int
    """Of the prompt."""
    output_tokens: int
    images: int
    by_fate: Mapping[str, int]
    """Visual tokens, by the names that answers call them."""
    flops: Mapping[str, int]
    """Modelled, of the language model, by `prefill` and `decode`; and with all visual tokens:"""
    flops_all_tokens: Mapping[str, int]
    kv_bytes: int
    kv_bytes_all_tokens: int
    seconds: Mapping[str, float]
    token_maps: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A question that cannot be answered; nothing follows."""

    error: InputError | CapacityError


Event = Piece | Spent | Failed
