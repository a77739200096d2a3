"""A request inside the engine: what it asked, what it has read, what it holds, what it has said so far."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from torch import Tensor

from skipvision.engine.logits_hook import LogitsHook
from skipvision.engine.logprobs import TokenLogprobs
from skipvision.engine.pages import PageTable
from skipvision.engine.request import Answer, Delta, FinishReason, Priority, Sampling
from skipvision.engine.text import AnswerText
from skipvision.engine.visual import Picture
from skipvision.errors import InputError
from skipvision.families.family import PromptTokens
from skipvision.method.plan import SkipConfig, SkipPlan

LiveId = str | tuple[str, int]
"""What a live request is known by: the id of its request; with the answer's index, where the request wants several."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """The beginning of a prompt that others may begin with, too. Two that are equal leave equal keys and values."""

    tokens: int
    text_ids: tuple[int, ...]
    image_offsets: tuple[int, ...]
    images: tuple[bytes, ...]
    """A digest of each image's pixels."""
    skip: SkipConfig
    adapter: str | None


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """What each position of a prompt holds; all arrays are (prompt_tokens,)."""

    ids: np.ndarray
    """int64; 0 at visual tokens."""
    is_visual: np.ndarray
    is_skipped: np.ndarray
    is_kept: np.ndarray
    """Whose keys and values stay cached once the prompt has been read."""


def lay_out(prompt: PromptTokens, plan: SkipPlan) -> PromptLayout:
    """Put text where it stands, and each image's tokens in their place."""
    is_visual = np.zeros(plan.prompt_tokens, dtype=bool)
    for start, image in zip(plan.image_starts(prompt.image_offsets), plan.images, strict=True):
        is_visual[start : start + image.lm_tokens] = True
    is_skipped = np.zeros(plan.prompt_tokens, dtype=bool)
    for start, stop in plan.skipped_spans(prompt.image_offsets):
        is_skipped[start:stop] = True
    ids = np.zeros(plan.prompt_tokens, dtype=np.int64)
    ids[~is_visual] = prompt.text_ids
    is_kept = ~is_skipped if plan.forget_skipped else np.ones_like(is_skipped)
    return PromptLayout(ids, is_visual, is_skipped, is_kept)


@dataclass(frozen=True, slots=True)
class Reading:
    """One request's part of a step: its tokens [start, stop), prompt and output counted through."""

    request: LiveRequest
    start: int
    stop: int
    speaks: bool
    """Whether the next output token follows from it: nothing is left unread."""

    @property
    def of_prompt(self) -> bool:
        return self.start < self.request.prompt_tokens

    @property
    def ends_prompt(self) -> bool:
        return self.stop == self.request.prompt_tokens

    @property
    def kept_tokens(self) -> int:
        """How many keys and values it adds to the cache."""
        if not self.of_prompt:
            return self.stop - self.start
        return int(self.request.layout.is_kept[self.start : self.stop].sum())

    @property
    def transient_tokens(self) -> int:
        """How many it adds to those that are dropped when the prompt has been read: none, if that is now."""
        return 0 if self.ends_prompt else self.stop - self.start - self.kept_tokens


@dataclass(eq=False)
class LiveRequest:
    """One answer to a request, from `add` to its last delta."""

    request_id: str
    sampling: Sampling
    skip: SkipConfig
    prompt: PromptTokens
    plan: SkipPlan
    images: tuple[Picture, ...]
    """Kept to the end: a request that is put back reads them again."""
    text: AnswerText
    added_at: float
    adapter: str | None = None
    index: int = 0
    """Which of the answers to its request it is."""
    num_answers: int = 1
    """How many answers its request wants."""
    logits_hook: LogitsHook | None = None
    priority: Priority = "normal"
    turn: tuple[float, int] = (0.0, 0)
    """Its place in the order of requests, which the scheduler gives."""
    read_at: float | None = None
    """When its prompt was first begun."""
    trunk: Trunk | None = None
    """What begins its prompt, and may begin others. None: nothing that is worth sharing."""
    spoke_at: list[float] = field(default_factory=list)
    """When each output token was chosen."""
    images_encoded: int = 0
    """How many of its images were not at hand when its prompt was last begun."""
    encode_seconds: float = 0.0
    """Its share of the steps that it was read in, so far."""
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of each output token, where its sampling asks."""
    read_tokens: int = 0
    """How many of its tokens the decoder has read, prompt first, then output: the position of the next one."""
    cached: PageTable = field(default_factory=PageTable)
    """Keys and values that stay to the end of the answer."""
    transient: PageTable = field(default_factory=PageTable)
    """Keys and values of skipped tokens, while a prompt that is forgotten in part is read in several steps."""
    pause_at: int = 0
    """Where it stops reading for a step, so that those who wait for its trunk can begin there."""
    leader: LiveRequest | None = None
    """Who reads its trunk for it; it reads nothing until that is done."""
    visual: Tensor | None = None
    """(visual tokens of the prompt, hidden): what was made of the images, until the prompt has been read."""

    @property
    def live_id(self) -> LiveId:
        return self.request_id if self.num_answers == 1 else (self.request_id, self.index)

    @cached_property
    def prompt_tokens(self) -> int:
        """As its plan counts them, once: every step asks several times."""
        return self.plan.prompt_tokens

    @cached_property
    def layout(self) -> PromptLayout:
        """Its prompt, position by position."""
        return lay_out(self.prompt, self.plan)

    @property
    def unread_tokens(self) -> int:
        """Tokens that can be read next, in one go: what is left of the prompt, or of the output after it.

        Never both: the output is read over a cache from which the prompt's skipped tokens are gone.
        """
        prompt_tokens = self.prompt_tokens
        if self.read_tokens < self.pause_at:
            return self.pause_at - self.read_tokens
        if self.read_tokens < prompt_tokens:
            return prompt_tokens - self.read_tokens
        return prompt_tokens + len(self.output_ids) - self.read_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether its newest output token is all that it has not read."""
        return self.read_tokens >= self.prompt_tokens and self.unread_tokens == 1

    def reading(self, tokens: int) -> Reading:
        """Its next `tokens` tokens, as one part of a step."""
        stop = self.read_tokens + tokens
        speaks = stop == self.prompt_tokens + len(self.output_ids)
        return Reading(self, self.read_tokens, stop, speaks)

    def start_over(self) -> None:
        """Forget what was read, when its pages are taken away; the output stays."""
        self.read_tokens, self.pause_at, self.visual, self.leader = 0, 0, None, None

    def hear(self, token: int, end_tokens: Collection[int], logprobs: TokenLogprobs | None = None) -> Delta:
        """Take the token that was chosen, and say what it adds."""
        self.output_ids.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        self.spoke_at.append(time.perf_counter())
        ended = token in end_tokens and not self.sampling.ignore_eos
        new_text = "" if ended else self.text.push(token)
        reason = self._finish_reason(ended)
        if reason is not None:
            new_text += self.text.finish()
        answer = self._answer(reason) if reason is not None else None
        return Delta(
            request_id=self.request_id,
            index=self.index,
            text=new_text,
            token_id=token,
            logprobs=logprobs,
            answer=answer,
        )

    def cancelled(self) -> Delta:
        """Its last delta when nobody wants the rest: no text that was not given before."""
        return Delta(
            request_id=self.request_id, index=self.index, text="", token_id=None, answer=self._answer("cancelled")
        )

    def failed(self, error: InputError) -> Delta:
        """Its last delta when it turns out to be wrong: no text that was not given before."""
        return Delta(
            request_id=self.request_id, index=self.index, text="", token_id=None, answer=self._answer("error", error)
        )

    def _finish_reason(self, ended: bool) -> FinishReason | None:
        if ended or self.text.stopped:
            return "stop"
        return "length" if len(self.output_ids) == self.sampling.max_tokens else None

    def _answer(self, reason: FinishReason, error: InputError | None = None) -> Answer:
        now = time.perf_counter()
        return Answer(
            request_id=self.request_id,
            index=self.index,
            text=self.text.so_far(),
            finish_reason=reason,
            output_ids=tuple(self.output_ids),
            logprobs=tuple(self.logprobs) if self.sampling.logprobs is not None else None,
            plan=self.plan,
            queue_seconds=(self.read_at or now) - self.added_at,
            encode_seconds=self.encode_seconds,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            first_token_seconds=(self.spoke_at[0] if self.spoke_at else now) - self.added_at,
            gap_seconds=tuple(after - before for before, after in pairwise(self.spoke_at)),
            seconds=now - self.added_at,
            error=error,
        )
