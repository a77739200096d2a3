"""Requests as callers write them become live requests: checked, tokenised, planned, or refused with a reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from skipvision.conversation import Message, images_of
from skipvision.engine.live_request import LiveRequest, Trunk
from skipvision.engine.logits_hook import ForkableHook, LogitsHook
from skipvision.engine.pages import whole_pages
from skipvision.engine.request import MOST_ANSWERS, Priority, Request
from skipvision.engine.sampling import answer_seed
from skipvision.engine.text import AnswerText
from skipvision.engine.vision_cache import digest_of
from skipvision.engine.visual import Picture
from skipvision.errors import ConfigError, InputError, PromptError, PromptTooLongError
from skipvision.families.checkpoint import check_resize
from skipvision.families.family import Family, PromptTokens
from skipvision.method.plan import SkipConfig, SkipPlan, plan_image, plan_prompt
from skipvision.method.split import check_pooled

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
    answers: int = MOST_ANSWERS
    """To one request."""


class Intake:
    """The door of one engine."""

    def __init__(self, family: Family, skip: SkipConfig, limits: Limits, adapters: Sequence[str] = ()) -> None:
        self._family, self._skip, self._limits, self._adapters = family, skip, limits, adapters
        self._check_own_skip()

    def accept(self, request: Request) -> list[LiveRequest]:
        """Check, tokenise and plan: one live request for each answer it wants.

        Raises:
            PromptError: there is no prompt, or it is no text.
            PromptTooLongError: it would never fit.
            InputError: `skip_does_not_fit`, or `input_invalid` for pixels that were not prepared.
        """
        added_at = time.perf_counter()
        _check_prompt(request)
        _check_priority(request.priority)
        self._check_adapter(request.adapter)
        self._check_answers(request.n)
        hooks = _fork(request.logits_hook, request.n)
        for image in request.images:
            _check_pixels(image)
        prompt = self._family.tokenize(request.prompt, num_images=len(request.images))
        skip = self._skip if request.skip is None else request.skip
        plan = self._plan(request, prompt, skip)
        self._check_size(plan, request.sampling.max_tokens)
        if prompt.image_offsets and prompt.image_offsets[-1] == len(prompt.text_ids):
            raise InputError("the chat template ends with an image; nothing would be asked about it")
        pictures = tuple(Picture(image, digest_of(image), skip) for image in request.images)
        trunk = _trunk(prompt, plan, skip, pictures, request)
        return [
            LiveRequest(
                request_id=request.request_id,
                sampling=replace(request.sampling, seed=answer_seed(request.sampling.seed, index)),
                skip=skip,
                prompt=prompt,
                plan=plan,
                images=pictures,
                text=AnswerText(self._family.detokenize, request.sampling.stop, whole=request.whole),
                added_at=added_at,
                adapter=request.adapter,
                index=index,
                num_answers=request.n,
                logits_hook=hook,
                priority=request.priority,
                trunk=trunk,
            )
            for index, hook in enumerate(hooks)
        ]

    def _check_adapter(self, adapter: object) -> None:
        if adapter is not None and adapter not in self._adapters:
            known = ", ".join(map(repr, self._adapters)) or "none"
            raise InputError(f"the adapter {adapter!r} is unknown; this engine has {known}")

    def _check_answers(self, answers: object) -> None:
        most = self._limits.answers
        if not isinstance(answers, int) or isinstance(answers, bool) or not 1 <= answers <= most:
            raise InputError(
                f"n must be a whole number from 1 to {most}, what this engine answers side by side; got {answers!r}",
                code="sampling_invalid",
            )

    def _plan(self, request: Request, prompt: PromptTokens, skip: SkipConfig) -> SkipPlan:
        visual_tokens = [self._family.preparer.visual_tokens(image) for image in request.images]
        try:
            plan = plan_prompt(skip, text_tokens=len(prompt.text_ids), visual_tokens=visual_tokens)
            self._check_summary(skip, plan.summary_tokens)
            check_resize(skip, can_resize=self._family.can_resize)
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
        check_resize(self._skip, can_resize=self._family.can_resize)

    def _check_summary(self, skip: SkipConfig, summary_tokens: int) -> None:
        if summary_tokens and self._family.summary is None:
            setting = skip.describe()
            raise ConfigError(
                f"the setting {setting} needs summary tokens and this checkpoint has no summary module; "
                f"use {setting}:plain, or a checkpoint fine-tuned with Skip-Vision"
            )
        if summary_tokens:
            check_pooled(skip, self._family.pooled_from)


def _trunk(
    prompt: PromptTokens, plan: SkipPlan, skip: SkipConfig, pictures: Sequence[Picture], request: Request
) -> Trunk | None:
    """What others may share: up to the last image; of a prompt with several answers, all but its last token.

    The last token is read by each answer, which speaks after it.
    """
    offsets = prompt.image_offsets
    if request.n > 1:
        tokens, text_tokens = plan.prompt_tokens - 1, len(prompt.text_ids) - 1
    elif offsets:
        tokens, text_tokens = plan.image_starts(offsets)[-1] + plan.images[-1].lm_tokens, offsets[-1]
    else:
        return None
    digests = tuple(picture.digest for picture in pictures)
    if not tokens:
        return None
    return Trunk(
        tokens=tokens,
        text_ids=prompt.text_ids[:text_tokens],
        image_offsets=offsets,
        images=digests,
        skip=skip,
        adapter=request.adapter,
    )


def _fork(hook: object, answers: int) -> Sequence[LogitsHook | None]:
    """A hook for each answer."""
    if hook is None:
        return [None] * answers
    if not callable(hook):
        raise InputError(f"logits_hook must be callable, or None; got {type(hook).__name__}")
    if answers == 1:
        return [hook]
    if not isinstance(hook, ForkableHook):
        raise InputError(
            f"n is {answers} and the logits_hook has no fork(), so that its answers would share its state; "
            "give it one, or send several requests"
        )
    try:
        return [hook.fork() for _ in range(answers)]
    except Exception as error:  # a caller's code may raise anything
        raise InputError(
            f"the logits hook's fork() raised {type(error).__name__}: {error}", code="logits_hook_failed"
        ) from error


def _check_prompt(request: Request) -> None:
    said = _texts_of(request.prompt)
    if not said[-1].strip():
        raise PromptError("the prompt is empty; ask something")
    try:
        "".join(said).encode()
    except UnicodeEncodeError as error:
        raise PromptError("the prompt holds half of a character (a lone surrogate); send valid Unicode") from error
    places = len(images_of(request.prompt)) if not isinstance(request.prompt, str) else len(request.images)
    if places != len(request.images):
        raise InputError(f"the messages show {places} images and the request brings {len(request.images)}")


def _texts_of(prompt: object) -> list[str]:
    """What is said, the last message at the end."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, tuple) and prompt and all(isinstance(message, Message) for message in prompt):
        return [message.text for message in prompt]
    raise PromptError(f"the prompt must be text, or messages; got {type(prompt).__name__}")


def _check_priority(priority: object) -> None:
    if priority not in get_args(Priority):
        raise InputError(f"priority must be one of {', '.join(get_args(Priority))}; got {priority!r}")


def _check_pixels(image: object) -> None:
    prepared = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and len(image) == 3
    if not prepared:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"an image must be uint8 of shape (3, height, width), as Engine.prepare returns; got {found}")
