"""Requests as callers write them become live requests: checked, tokenised, planned, or refused with a reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import get_args

import numpy as np

from skipvision.engine.kv_cache import whole_pages
from skipvision.engine.live_request import LiveRequest, Trunk
from skipvision.engine.request import Priority, Request
from skipvision.engine.text import AnswerText
from skipvision.errors import ConfigError, InputError, PromptError, PromptTooLongError
from skipvision.families.family import Family, PromptTokens
from skipvision.method.plan import SkipConfig, SkipPlan, plan_image, plan_prompt

_ANY_PICTURE = np.zeros((64, 64, 3), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What no request may exceed."""

    context_tokens: int
    """Prompt and answer together."""
    step_tokens: int
    """What is read in one step; a longer prompt is read in several, its skipped tokens cached until the last."""
    cache_tokens: int
    """What a request has cached at any time."""


class Intake:
    """The door of one engine."""

    def __init__(self, family: Family, skip: SkipConfig, limits: Limits) -> None:
        self._family, self._skip, self._limits = family, skip, limits
        self._check_own_skip()

    def accept(self, request: Request) -> LiveRequest:
        """Check, tokenise and plan.

        Raises:
            PromptError: there is no prompt, or it is no text.
            PromptTooLongError: it would never fit.
            InputError: `skip_does_not_fit`, or `input_invalid` for pixels that were not prepared.
        """
        added_at = time.perf_counter()
        _check_prompt(request.prompt)
        _check_priority(request.priority)
        _check_hook(request.logits_hook)
        for image in request.images:
            _check_pixels(image)
        prompt = self._family.tokenize(request.prompt, num_images=len(request.images))
        skip = self._skip if request.skip is None else request.skip
        plan = self._plan(request, prompt, skip)
        self._check_size(plan, request.sampling.max_tokens)
        if prompt.image_offsets and prompt.image_offsets[-1] == len(prompt.text_ids):
            raise InputError("the chat template ends with an image; nothing would be asked about it")
        return LiveRequest(
            request_id=request.request_id,
            sampling=request.sampling,
            skip=skip,
            prompt=prompt,
            plan=plan,
            images=tuple(request.images),
            text=AnswerText(self._family.detokenize, request.sampling.stop),
            added_at=added_at,
            logits_hook=request.logits_hook,
            priority=request.priority,
            trunk=_trunk(prompt, plan, skip, request.images) if request.images else None,
        )

    def _plan(self, request: Request, prompt: PromptTokens, skip: SkipConfig) -> SkipPlan:
        visual_tokens = [self._family.preparer.visual_tokens(image) for image in request.images]
        try:
            plan = plan_prompt(skip, text_tokens=len(prompt.text_ids), visual_tokens=visual_tokens)
            self._check_summary(skip, plan.summary_tokens)
        except ConfigError as error:
            raise InputError(str(error), code="skip_does_not_fit") from error
        return plan

    def _check_size(self, plan: SkipPlan, max_tokens: int) -> None:
        limits = self._limits
        if max_tokens >= min(limits.context_tokens, limits.cache_tokens):
            raise InputError(
                f"max_tokens is {max_tokens}, which leaves no room for a prompt in the "
                f"{min(limits.context_tokens, limits.cache_tokens)} tokens that the model holds; ask for fewer",
                code="sampling_invalid",
            )
        # The last token of an answer is never read, so never cached.
        most_cached = plan.cached_tokens + max_tokens - 1
        if plan.prompt_tokens > limits.step_tokens:
            dropped = plan.prompt_tokens - plan.cached_tokens
            most_cached = max(most_cached, whole_pages(plan.cached_tokens) + whole_pages(dropped))
        excess = max(plan.prompt_tokens + max_tokens - limits.context_tokens, most_cached - limits.cache_tokens)
        if excess > 0:
            raise PromptTooLongError(prompt_tokens=plan.prompt_tokens, limit_tokens=plan.prompt_tokens - excess)

    def _check_own_skip(self) -> None:
        """Refuse, before anything starts, a setting of the engine that its images cannot satisfy."""
        preparer = self._family.preparer
        image = plan_image(self._skip, preparer.visual_tokens(preparer.prepare(_ANY_PICTURE)))
        self._check_summary(self._skip, image.summaries)

    def _check_summary(self, skip: SkipConfig, summary_tokens: int) -> None:
        if summary_tokens and self._family.summary is None:
            setting = skip.describe()
            raise ConfigError(
                f"the setting {setting} needs summary tokens and this checkpoint has no summary module; "
                f"use {setting}:plain, or a checkpoint fine-tuned with Skip-Vision"
            )


def _trunk(prompt: PromptTokens, plan: SkipPlan, skip: SkipConfig, images: Sequence[np.ndarray]) -> Trunk:
    offsets, starts = prompt.image_offsets, plan.image_starts(prompt.image_offsets)
    digests = (blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
    return Trunk(
        tokens=starts[-1] + plan.images[-1].lm_tokens,
        text_ids=prompt.text_ids[: offsets[-1]],
        image_offsets=offsets,
        images=tuple(digests),
        skip=skip,
    )


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str):
        raise PromptError(f"the prompt must be text; got {type(prompt).__name__}")
    if not prompt.strip():
        raise PromptError("the prompt is empty; ask something")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise PromptError("the prompt holds half of a character (a lone surrogate); send valid Unicode") from error


def _check_priority(priority: object) -> None:
    if priority not in get_args(Priority):
        raise InputError(f"priority must be one of {', '.join(get_args(Priority))}; got {priority!r}")


def _check_hook(hook: object) -> None:
    if hook is not None and not callable(hook):
        raise InputError(f"logits_hook must be callable, or None; got {type(hook).__name__}")


def _check_pixels(image: object) -> None:
    prepared = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and len(image) == 3
    if not prepared:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"an image must be uint8 of shape (3, height, width), as Engine.prepare returns; got {found}")
