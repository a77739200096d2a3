"""Who is read in the next step, how far, and who waits.

Decides order and admission only and never touches a tensor. First come, first read: nobody overtakes a request that
waits for room, and when pages run out the youngest gives way to the oldest, so nobody starves and the oldest always
goes on. Whoever gives way goes back to the head of the line and reads its prompt and its output again.

Neighbours in the line whose prompts begin with the same images share that trunk: the first reads it, and the others
begin where it ends, with pages shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from skipvision.engine.kv_cache import PAGE_TOKENS, PagePool, pages_for
from skipvision.engine.live_request import LiveRequest, Reading
from skipvision.errors import QueueFullError


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass: the newest output token of those who decode, then the parts of prompts that are read."""

    decodes: tuple[Reading, ...] = ()
    chunks: tuple[Reading, ...] = ()
    """Parts of prompts; and the output so far of requests that start over."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Everything that is read, in the order of its rows."""
        return self.decodes + self.chunks

    @property
    def speakers(self) -> tuple[LiveRequest, ...]:
        """Everyone who gets a token from this step, in the order of its rows."""
        return tuple(reading.request for reading in self.readings if reading.speaks)


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
        self.preemptions = 0
        """How often a request was put back for want of pages."""
        self.shared_tokens = 0
        """Prompt tokens that were not read, because another request had read the same trunk."""

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
        """Give the running their next tokens, oldest first, and what is left of the step to those who wait."""
        before, budget = self.preemptions, self._max_step_tokens
        decodes: list[Reading] = []
        chunks: list[Reading] = []
        for request in self._oldest_first():
            if self._waits_for_trunk(request):
                continue
            tokens = 1 if request.is_decoding else min(request.unread_tokens, budget)
            reading = request.reading(tokens)
            if tokens and self._make_room(reading):
                (decodes if request.is_decoding else chunks).append(reading)
                budget -= 0 if request.is_decoding else tokens
        if self.preemptions == before:  # whoever came in now would be the next to be put back
            chunks += self._admit(budget)
        return Step(tuple(decodes), tuple(chunks))

    def settle(self, step: Step) -> list[tuple[int, int]]:
        """Note that the pass has read the step; what was kept only until a prompt's end is free.

        Returns:
            Pages to copy, (from, to) each, before the next step.
        """
        copies: list[tuple[int, int]] = []
        for reading in step.readings:
            reading.request.read_tokens = reading.stop
            if reading.stop == reading.request.pause_at:
                for follower in self._running.values():
                    if follower.leader is reading.request:
                        copies += self._branch_off(follower)
            if reading.ends_prompt:
                self._pool.give_back(reading.request.transient)
                reading.request.visual = None
        return copies

    def remove(self, request_id: str) -> LiveRequest | None:
        """Let a request go, wherever it stands; its pages are free at once. None: it is not here."""
        request = self._waiting.pop(request_id, None) or self._running.pop(request_id, None)
        if request is not None:
            self._take_pages(request)
        return request

    def _oldest_first(self) -> Iterator[LiveRequest]:
        """The running requests, less those that are put back meanwhile."""
        for request in tuple(self._running.values()):
            if request.request_id in self._running:
                yield request

    def _admit(self, budget: int) -> Iterator[Reading]:
        while self._waiting and len(self._running) < self._max_running:
            first = next(iter(self._waiting.values()))
            leader = self._leader_for(first)
            if leader is None:
                first.pause_at = self._trunk_to_share(first)
                # What fits into one step is never split: its skipped tokens then need no room at all.
                if not budget or budget < first.unread_tokens <= self._max_step_tokens:
                    break
            reading = first.reading(min(first.unread_tokens, budget))
            whole = leader is None and reading.ends_prompt
            if self._pages_to_start(first, whole=whole) > self._pool.free_pages:
                break  # it goes first as soon as there is room; whoever stands behind it waits too
            self._running[first.request_id] = self._waiting.pop(first.request_id)
            if leader is not None:
                self._follow(leader, first)
                continue
            budget -= reading.stop
            self._hand_out(reading)
            yield reading

    def _trunk_to_share(self, first: LiveRequest) -> int:
        """Where the head of the line should pause for the one behind it; 0: they have nothing in common."""
        second = next(islice(self._waiting.values(), 1, None), None)
        if first.trunk is None or second is None or second.trunk != first.trunk:
            return 0
        return first.trunk.tokens if len(self._running) + 1 < self._max_running else 0

    def _leader_for(self, request: LiveRequest) -> LiveRequest | None:
        """Who is reading the trunk of `request` and will pause at its end."""
        if request.trunk is None:
            return None
        for other in self._running.values():
            if other.read_tokens < other.pause_at and other.trunk == request.trunk:
                return other
        return None

    def _follow(self, leader: LiveRequest, follower: LiveRequest) -> None:
        """Wait for a trunk, with the pages in hand that will take the copies of its last, partial ones."""
        follower.leader = leader
        kept = int(leader.layout.is_kept[: leader.pause_at].sum())
        for table, tokens in ((follower.cached, kept), (follower.transient, leader.pause_at - kept)):
            self._pool.hand_out(table, 1 if tokens % PAGE_TOKENS else 0)

    def _waits_for_trunk(self, request: LiveRequest) -> bool:
        """Whether someone still reads for it. If that one has left or was put back, it reads for itself."""
        leader = request.leader
        if leader is None:
            return False
        if self._running.get(leader.request_id) is leader and leader.read_tokens < leader.pause_at:
            return True
        request.leader = None
        return False

    def _branch_off(self, follower: LiveRequest) -> list[tuple[int, int]]:
        """Begin where the leader's trunk ends; the pages to copy."""
        leader, follower.leader = follower.leader, None
        assert leader is not None, "only a follower branches off"
        follower.read_tokens = leader.pause_at
        self.shared_tokens += leader.pause_at
        pairs = ((leader.cached, follower.cached), (leader.transient, follower.transient))
        return [copy for own, other in pairs if (copy := self._pool.share(own, other)) is not None]

    def _pages_to_start(self, request: LiveRequest, *, whole: bool) -> int:
        """Pages to read all it has, and one more for each that runs, so that it is not put back at once."""
        plan = request.plan
        dropped = 0 if whole else plan.prompt_tokens - plan.cached_tokens
        during = pages_for(plan.cached_tokens) + pages_for(dropped)
        return max(during, pages_for(plan.cached_tokens + len(request.output_ids))) + len(self._running)

    def _make_room(self, reading: Reading) -> bool:
        """Hand out the pages of a running request's reading, the youngest giving way. False: that is itself."""
        while _pages_for(reading) > self._pool.free_pages:
            youngest = next(reversed(self._running.values()))
            self._put_back(youngest)
            if youngest is reading.request:
                return False
        self._hand_out(reading)
        return True

    def _put_back(self, request: LiveRequest) -> None:
        """To the head of the line: it is older than all who wait."""
        self.preemptions += 1
        self._take_pages(self._running.pop(request.request_id))
        request.start_over()
        self._waiting = {request.request_id: request, **self._waiting}

    def _hand_out(self, reading: Reading) -> None:
        request = reading.request
        for table, tokens in ((request.cached, reading.kept_tokens), (request.transient, reading.transient_tokens)):
            self._pool.hand_out(table, table.pages_to_hold(tokens))

    def _take_pages(self, request: LiveRequest) -> None:
        for table in (request.cached, request.transient):
            self._pool.give_back(table)


def _pages_for(reading: Reading) -> int:
    request = reading.request
    kept, transient = reading.kept_tokens, reading.transient_tokens
    return request.cached.pages_to_hold(kept) + request.transient.pages_to_hold(transient)
