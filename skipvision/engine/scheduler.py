"""Who is read in the next step, who speaks, who waits.

Decides order and admission only and never touches a tensor. First come, first read: a request is admitted when the
pages for its cached prompt and for its longest answer are free, and nobody overtakes it, so nobody starves. Since
everything a running request can ever need is reserved when it is admitted, no running request is ever put back.
"""

from __future__ import annotations

from dataclasses import dataclass

from skipvision.engine.kv_cache import PagePool
from skipvision.engine.live_request import LiveRequest
from skipvision.errors import QueueFullError


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass: who generates its next token, and whose prompt is read."""

    decodes: tuple[LiveRequest, ...]
    prompts: tuple[LiveRequest, ...]

    @property
    def requests(self) -> tuple[LiveRequest, ...]:
        """Everyone who gets a token from this step, in the order of its rows."""
        return self.decodes + self.prompts


class Scheduler:
    """The waiting line and the running requests."""

    def __init__(
        self, pool: PagePool, *, max_running: int, max_step_tokens: int, max_waiting: int | None = None
    ) -> None:
        self._pool = pool
        self._max_running, self._max_step_tokens, self._max_waiting = max_running, max_step_tokens, max_waiting
        # Dictionaries, for their order and because a request may leave from the middle of either.
        self._waiting: dict[str, LiveRequest] = {}
        self._running: dict[str, LiveRequest] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting or request_id in self._running

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def request_ids(self) -> tuple[str, ...]:
        """Everyone who is here: the running first, then the line."""
        return (*self._running, *self._waiting)

    @property
    def line_is_full(self) -> bool:
        return self._max_waiting is not None and len(self._waiting) >= self._max_waiting

    def add(self, request: LiveRequest) -> None:
        """Put a request at the end of the line.

        Raises:
            QueueFullError: the line is as long as it may be.
        """
        if self.line_is_full:
            raise QueueFullError(f"{len(self._waiting)} requests are waiting, which is the limit; try again later")
        self._waiting[request.request_id] = request

    def next_step(self) -> Step:
        """Admit whom there is room for; their prompts are read while the others speak."""
        decodes = tuple(self._running.values())
        return Step(decodes, tuple(self._admit()))

    def remove(self, request_id: str) -> LiveRequest | None:
        """Let a request go, wherever it stands; its pages are free at once. None: it is not here."""
        request = self._waiting.pop(request_id, None) or self._running.pop(request_id, None)
        if request is not None and request.pages is not None:
            self._pool.give_back(request.pages)
            request.pages = None
        return request

    def _admit(self) -> list[LiveRequest]:
        admitted: list[LiveRequest] = []
        budget = self._max_step_tokens
        while self._waiting and len(self._running) < self._max_running:
            first = next(iter(self._waiting.values()))
            if first.plan.prompt_tokens > budget or not self._pool.has_room_for(first.most_cached_tokens):
                break  # it goes first as soon as there is room; whoever stands behind it waits too
            budget -= first.plan.prompt_tokens
            first.pages = self._pool.take(first.most_cached_tokens)
            self._running[first.request_id] = self._waiting.pop(first.request_id)
            admitted.append(first)
        return admitted
