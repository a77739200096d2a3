"""Who is read in the next step, how far, and who waits.

Decides order and admission only and never touches a tensor. Everyone has a turn: when it came, give or take what its
priority is worth. Earlier turns are read first: nobody overtakes a request that waits for room, and when pages run out
the last turn gives way to the first, so nobody starves and the first always goes on. Whoever gives way goes back to its
place in the line and reads its prompt and its output again.

Neighbours in the line whose prompts begin with the same images share that trunk: the first reads it, and the others
begin where it ends, with pages shared.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from skipvision.engine.live_request import LiveId, LiveRequest, Reading
from skipvision.engine.pages import PAGE_TOKENS, PagePool, pages_for
from skipvision.engine.request import Priority
from skipvision.errors import QueueFullError

# Claims are rounded up to so many pages, so that sequences much alike in size stand at equal distances.
_CLAIMED_TOGETHER = 4

HEAD_START_SECONDS: dict[Priority, float] = {"high": 30.0, "normal": 0.0, "low": -60.0}
"""A request stands in the line as if it had come so much earlier. A bound, so that no class can starve another."""


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass: the newest output token of those who decode, then the parts of prompts that are read."""

    decodes: tuple[Reading, ...] = ()
    """In the order in which their caches stand."""
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
        self._line: list[LiveRequest] = []  # by turn
        self._waiting: set[LiveId] = set()
        self._running: dict[LiveId, LiveRequest] = {}
        self._arrivals = count()
        self.preemptions = 0
        """How often a request was put back for want of pages."""
        self.shared_tokens = 0
        """Prompt tokens that were not read, because another request had read the same trunk."""

    def __contains__(self, live_id: LiveId) -> bool:
        return live_id in self._waiting or live_id in self._running

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    @property
    def head_added_at(self) -> float | None:
        """When the head of the line came, on the clock of `LiveRequest.added_at`. None: nobody waits."""
        head = self._line[:1]  # one look, since another thread may ask
        return head[0].added_at if head else None

    @property
    def num_running(self) -> int:
        return len(self._running)

    def request_ids(self) -> tuple[LiveId, ...]:
        """Everyone who is here: the running first, then the line, each by their turn."""
        return tuple(request.live_id for request in (*self._by_turn(), *self._line))

    @property
    def line_is_full(self) -> bool:
        return self._max_waiting is not None and len(self._waiting) >= self._max_waiting

    def add(self, *together: LiveRequest) -> None:
        """Put a request, which may be several answers, in its place in the line.

        Raises:
            QueueFullError: the line is as long as it may be.
        """
        if self.line_is_full:
            raise QueueFullError(f"{len(self._waiting)} requests are waiting, which is the limit; try again later")
        for request in together:
            request.turn = (request.added_at - HEAD_START_SECONDS[request.priority], next(self._arrivals))
            self._wait(request)

    def next_step(self) -> Step:
        """Give the running their next tokens, by turn, and what is left of the step to those who wait."""
        before, budget = self.preemptions, self._max_step_tokens
        decodes: list[Reading] = []
        chunks: list[Reading] = []
        for request in self._by_turn():
            if request.live_id not in self._running or self._waits_for_trunk(request):
                continue  # it gave way to one before it, or someone reads for it
            tokens = 1 if request.is_decoding else min(request.unread_tokens, budget)
            reading = request.reading(tokens)
            if tokens and self._make_room(reading):
                (decodes if request.is_decoding else chunks).append(reading)
                budget -= 0 if request.is_decoding else tokens
        if self.preemptions == before:  # whoever came in now would be the next to be put back
            chunks += self._admit(budget)
        return Step(_as_caches_stand(decodes), tuple(chunks))

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

    def remove(self, live_id: LiveId) -> LiveRequest | None:
        """Let a request go, wherever it stands; its pages are free at once. None: it is not here."""
        request = self._running.pop(live_id, None)
        if live_id in self._waiting:
            request = next(each for each in self._line if each.live_id == live_id)
            self._leave_line(request)
        if request is not None:
            self._take_pages(request)
        return request

    def _by_turn(self) -> list[LiveRequest]:
        return sorted(self._running.values(), key=_turn)

    def _wait(self, request: LiveRequest) -> None:
        insort(self._line, request, key=_turn)
        self._waiting.add(request.live_id)

    def _leave_line(self, request: LiveRequest) -> None:
        del self._line[bisect_left(self._line, request.turn, key=_turn)]
        self._waiting.remove(request.live_id)

    def _admit(self, budget: int) -> Iterator[Reading]:
        while self._line and len(self._running) < self._max_running:
            first = self._line[0]
            leader = self._leader_for(first)
            if leader is None:
                first.pause_at = self._trunk_to_share(first)
                # What fits into one step is never split: its skipped tokens then need no room at all.
                if not budget or budget < first.unread_tokens <= self._max_step_tokens:
                    break
            reading = first.reading(min(first.unread_tokens, budget))
            pages = self._pages_to_read(first, whole=reading.ends_prompt)
            if leader is not None:
                pages = self._pages_to_follow(leader, first)
            # And one more for each that runs, so that it is not put back at once.
            if pages + len(self._running) > self._pool.free_pages:
                break  # it goes first as soon as there is room; whoever stands behind it waits too
            self._leave_line(first)
            self._running[first.live_id] = first
            if leader is not None:
                self._follow(leader, first)
                continue
            budget -= reading.stop
            self._pool.claim(first.cached, _most_pages(first))
            self._hand_out(reading)
            yield reading

    def _trunk_to_share(self, first: LiveRequest) -> int:
        """Where the head of the line should pause for the one behind it; 0: they have nothing in common."""
        if first.trunk is None or len(self._line) < 2 or self._line[1].trunk != first.trunk:
            return 0
        # Whoever pauses keeps its skipped tokens until then; where they never fit, each reads for itself.
        fits = self._pages_to_read(first, whole=False) <= self._pool.num_pages
        return first.trunk.tokens if fits and len(self._running) + 1 < self._max_running else 0

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
        kept, dropped = _trunk_tokens(leader)
        for table, tokens in ((follower.cached, kept), (follower.transient, dropped)):
            self._pool.hand_out(table, 1 if tokens % PAGE_TOKENS else 0)

    def _waits_for_trunk(self, request: LiveRequest) -> bool:
        """Whether someone still reads for it. If that one has left or was put back, it reads for itself."""
        leader = request.leader
        if leader is None:
            return False
        if self._running.get(leader.live_id) is leader and leader.read_tokens < leader.pause_at:
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

    def _pages_to_follow(self, leader: LiveRequest, follower: LiveRequest) -> int:
        """Pages that the leader lacks for its trunk, and the follower's for all it has but what it will share."""
        kept, dropped = _trunk_tokens(leader)
        lacking = pages_for(kept) - len(leader.cached.pages) + pages_for(dropped) - len(leader.transient.pages)
        shared = kept // PAGE_TOKENS + dropped // PAGE_TOKENS
        return lacking + self._pages_to_read(follower, whole=False) - shared

    def _pages_to_read(self, request: LiveRequest, *, whole: bool) -> int:
        """Pages to read all it has.

        Args:
            whole: the prompt is read in one step, and what is dropped after it is never written.
        """
        plan = request.plan
        dropped = 0 if whole else plan.prompt_tokens - plan.cached_tokens
        during = pages_for(plan.cached_tokens) + pages_for(dropped)
        return max(during, pages_for(plan.cached_tokens + len(request.output_ids)))

    def _make_room(self, reading: Reading) -> bool:
        """Hand out the pages of a running request's reading, the last turn giving way. False: that is its own."""
        lacking = _pages_for(reading)
        while lacking > self._pool.free_pages:
            last = max(self._running.values(), key=_turn)
            self._put_back(last)
            if last is reading.request:
                return False
        if lacking:
            self._hand_out(reading)
        return True

    def _put_back(self, request: LiveRequest) -> None:
        """To its place in the line."""
        self.preemptions += 1
        self._take_pages(self._running.pop(request.live_id))
        request.start_over()
        self._wait(request)

    def _hand_out(self, reading: Reading) -> None:
        request = reading.request
        for table, tokens in ((request.cached, reading.kept_tokens), (request.transient, reading.transient_tokens)):
            self._pool.hand_out(table, table.pages_to_hold(tokens))

    def _take_pages(self, request: LiveRequest) -> None:
        for table in (request.cached, request.transient):
            self._pool.give_back(table)


def _turn(request: LiveRequest) -> tuple[float, int]:
    return request.turn


def _as_caches_stand(decodes: Sequence[Reading]) -> tuple[Reading, ...]:
    """Those that share a beginning side by side, then those in one place by where it is, then the others."""
    holders = Counter(reading.request.cached.pages[0] for reading in decodes)

    def place(reading: Reading) -> tuple[int, int]:
        table = reading.request.cached
        kind = 0 if holders[table.pages[0]] > 1 else 1 if table.first_slot is not None else 2
        return kind, table.pages[0]

    return tuple(sorted(decodes, key=place))


def _most_pages(request: LiveRequest) -> int:
    """Pages that it may fill before its answer ends, rounded up."""
    # The last token of an answer is never read, so never cached.
    pages = pages_for(request.plan.cached_tokens + request.sampling.max_tokens - 1)
    return -(-pages // _CLAIMED_TOGETHER) * _CLAIMED_TOGETHER


def _trunk_tokens(leader: LiveRequest) -> tuple[int, int]:
    """Of the tokens before its pause, those that stay cached and those that are dropped after the prompt."""
    kept = int(leader.layout.is_kept[: leader.pause_at].sum())
    return kept, leader.pause_at - kept


def _pages_for(reading: Reading) -> int:
    request = reading.request
    kept, transient = reading.kept_tokens, reading.transient_tokens
    return request.cached.pages_to_hold(kept) + request.transient.pages_to_hold(transient)
