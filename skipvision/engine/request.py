"""What a caller asks of the engine, and what it gets back: frozen values, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from skipvision.conversation import Conversation
from skipvision.engine.logits_hook import LogitsHook
from skipvision.engine.logprobs import MOST_ALTERNATIVES, TokenLogprobs
from skipvision.errors import InputError
from skipvision.method.plan import SkipConfig, SkipPlan

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""`stop`: the model ended its answer or wrote a stop string; `length`: `max_tokens` were generated; `error`: the
request turned out to be wrong while it was answered, and `Answer.error` says how."""

Priority = Literal["high", "normal", "low"]
"""`high` stands in the line as if it had come half a minute earlier, `low` as if it had come a minute later."""

MOST_ANSWERS = 128

_SEEDS = 2**63


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} must be {allowed}; got {value!r}", code="sampling_invalid")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen and when an answer ends. The default is greedy.

    Raises:
        InputError: a value is out of range; code `sampling_invalid`.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together hold this share of the probability."""
    top_k: int | None = None
    """Draw from this many likeliest tokens. None: from all."""
    seed: int = 0
    """A draw depends on the seed and the token's place in the answer, on nothing else."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    ignore_eos: bool = False
    """Go on to `max_tokens`, whatever the model says; for measurements."""
    logprobs: int | None = None
    """Tell how likely each token was, and this many of the likeliest in its place. None: do not tell."""

    def __post_init__(self) -> None:
        _require(_is_int(self.max_tokens) and self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        in_range = _is_number(self.temperature) and 0 <= self.temperature < math.inf
        _require(in_range, "temperature", self.temperature, "a number from 0 up")
        _require(_is_number(self.top_p) and 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        in_range = self.top_k is None or (_is_int(self.top_k) and self.top_k >= 1)
        _require(in_range, "top_k", self.top_k, "at least 1, or None for all tokens")
        _require(
            _is_int(self.seed) and 0 <= self.seed < _SEEDS, "seed", self.seed, "a whole number from 0 to 2**63 - 1"
        )
        texts = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        _require(texts, "stop", self.stop, "a tuple of texts that are not empty")
        in_range = self.logprobs is None or (_is_int(self.logprobs) and 0 <= self.logprobs <= MOST_ALTERNATIVES)
        _require(in_range, "logprobs", self.logprobs, f"from 0 to {MOST_ALTERNATIVES}, or None for none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question about images, or about none."""

    prompt: str | Conversation
    """What the user asks, all images shown before it; or messages, with images where they stand, and the user's last.
    Sources of their images are not looked at: `images` are."""
    images: tuple[np.ndarray, ...] = ()
    """Prepared pixels, (3, height, width) uint8 each, as `Engine.prepare` returns them; read, never changed."""
    sampling: Sampling = Sampling()
    skip: SkipConfig | None = None
    """How much visual work to leave out of this request. None: what the engine was given."""
    adapter: str | None = None
    """A LoRA adapter of the engine, by its name. None: the model as it is."""
    n: int = 1
    """Answers to give, from one reading of the prompt. The first is what a single one would be; the answer at `index`
    is what a request with the seed `answer_seed(seed, index)` would get."""
    logits_hook: LogitsHook | None = None
    """Has its say before each token is chosen. One that fails ends its own request, and no other."""
    priority: Priority = "normal"
    whole: bool = False
    """Tell the text with the last delta alone, which costs less, where nobody reads along; what it stops at is still
    looked for as it comes."""
    request_id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A finished answer."""

    request_id: str
    index: int = 0
    """Which of the request's answers this is."""
    text: str
    """Whole characters only; a stop string and what follows it is left out."""
    finish_reason: FinishReason
    output_ids: tuple[int, ...]
    """Every generated token, the end token included."""
    logprobs: tuple[TokenLogprobs, ...] | None
    """Of each of these tokens. None: `Sampling.logprobs` did not ask."""
    plan: SkipPlan
    """The prompt's tokens by fate."""
    queue_seconds: float
    """From `Engine.add` to the step that began to read the prompt."""
    encode_seconds: float
    """Of the vision side's passes, by the images that each encoded: its own. 0 when all were at hand."""
    prefill_seconds: float
    """Of the decoder's passes, by the rows that each read: its prompt's, and its output's if it read that again."""
    decode_seconds: float
    """Of the decoder's passes, by the rows that each read: its newest tokens'."""
    first_token_seconds: float
    """From `Engine.add` to the first token. The same as `seconds` if there was none."""
    gap_seconds: tuple[float, ...]
    """From each token to the next."""
    seconds: float
    """From `Engine.add` to the end of the answer."""
    error: InputError | None = None
    """Why the answer ends here, where `finish_reason` is `error`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """What one step adds to one answer. The texts of all its deltas, joined, are the answer's text."""

    request_id: str
    index: int = 0
    """Which of the request's answers it belongs to."""
    text: str
    """New text; may be empty, while a character or what may be a stop string is incomplete."""
    token_id: int | None
    """The token just generated; None when the request was cancelled, or turned out to be wrong."""
    logprobs: TokenLogprobs | None = None
    """Of this token, where the request asks."""
    answer: Answer | None = None
    """Set on the last delta of an answer."""
