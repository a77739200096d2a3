"""A request inside the engine: what it asked, what it holds, what it has said so far."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from skipvision.engine.kv_cache import PageTable
from skipvision.engine.request import Answer, Delta, FinishReason, Sampling
from skipvision.engine.text import AnswerText
from skipvision.families.family import PromptTokens
from skipvision.method.plan import SkipConfig, SkipPlan


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request from `add` to its last delta."""

    request_id: str
    sampling: Sampling
    skip: SkipConfig
    prompt: PromptTokens
    plan: SkipPlan
    images: tuple[np.ndarray, ...]
    """Let go of once they have been read."""
    text: AnswerText
    added_at: float
    first_token_at: float | None = None
    output_ids: list[int] = field(default_factory=list)
    pages: PageTable | None = None
    """While it is running."""

    @property
    def most_cached_tokens(self) -> int:
        """Cached tokens at the end of the longest answer; its last token is never read, so never cached."""
        return self.plan.cached_tokens + self.sampling.max_tokens - 1

    @property
    def next_position(self) -> int:
        """Position of the newest output token, skipped tokens counted: not the length of its cache."""
        return self.plan.prompt_tokens + len(self.output_ids) - 1

    @property
    def held_pages(self) -> PageTable:
        """Its pages, which a running request has."""
        assert self.pages is not None, "only a running request is read"
        return self.pages

    def hear(self, token: int, end_tokens: Collection[int]) -> Delta:
        """Take the token that was chosen, and say what it adds."""
        self.output_ids.append(token)
        if self.first_token_at is None:
            self.first_token_at = time.perf_counter()
        ended = token in end_tokens and not self.sampling.ignore_eos
        new_text = "" if ended else self.text.push(token)
        reason = self._finish_reason(ended)
        if reason is None:
            return Delta(request_id=self.request_id, text=new_text, token_id=token)
        new_text += self.text.finish()
        return Delta(request_id=self.request_id, text=new_text, token_id=token, answer=self._answer(reason))

    def cancelled(self) -> Delta:
        """Its last delta when nobody wants the rest: no text that was not given before."""
        return Delta(request_id=self.request_id, text="", token_id=None, answer=self._answer("cancelled"))

    def _finish_reason(self, ended: bool) -> FinishReason | None:
        if ended or self.text.stopped:
            return "stop"
        return "length" if len(self.output_ids) == self.sampling.max_tokens else None

    def _answer(self, reason: FinishReason) -> Answer:
        now = time.perf_counter()
        return Answer(
            request_id=self.request_id,
            text=self.text.so_far(),
            finish_reason=reason,
            output_ids=tuple(self.output_ids),
            plan=self.plan,
            first_token_seconds=(self.first_token_at or now) - self.added_at,
            seconds=now - self.added_at,
        )
