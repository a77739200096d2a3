"""One engine, driven by one thread, for many callers: several shards are in its batch at once and it never drains.

A caller hands in its requests and sleeps until the last of them is answered. When the engine fails, all callers get
the failure, and the next call starts on a fresh engine: unless a GPU is what failed, since a CUDA context that has
seen an illegal access or a hardware fault fails for ever, and then the process ends.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue

from skipvision.engine import Answer, Engine, EngineCounts, EngineStats, Request
from skipvision.errors import EngineDeadError, InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineWork:
    """What engines did in some time."""

    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage of the metrics catalogue; none where nothing was done."""
    counts: EngineCounts = field(default_factory=EngineCounts)

    def __add__(self, other: EngineWork) -> EngineWork:
        stages = sorted(self.stage_seconds.keys() | other.stage_seconds.keys())
        seconds = {s: self.stage_seconds.get(s, 0.0) + other.stage_seconds.get(s, 0.0) for s in stages}
        return EngineWork(seconds, self.counts + other.counts)


@dataclass(slots=True)
class _Call:
    """One caller's requests, and what has come of them."""

    requests: Sequence[Request]
    outcomes: dict[str, Answer | InputError] = field(default_factory=dict)
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def put(self, request_id: str, outcome: Answer | InputError) -> None:
        self.outcomes[request_id] = outcome
        if len(self.outcomes) == len(self.requests):
            self.done.set()


class EngineThread:
    """Answers for any number of threads.

    Args:
        engine: is this one's alone from now on.
        reload: makes another after a failure.
    """

    def __init__(self, engine: Engine, *, reload: Callable[[], Engine]) -> None:
        self._engine: Engine | None = engine
        self._reload = reload
        self._calls: Queue[_Call] = Queue()
        self._waiting: dict[str, _Call] = {}
        self._work = EngineWork()
        self._work_lock = threading.Lock()
        threading.Thread(target=self._drive, name="engine", daemon=True).start()

    def answer(self, requests: Sequence[Request]) -> list[Answer | InputError]:
        """Answer all requests, in order; one that is wrong, or turns out to be, gets its error in its place.

        Raises:
            EngineDeadError: the engine failed; none of the requests counts as answered.
        """
        assert all(request.n == 1 for request in requests), "a row has one answer"
        if not requests:
            return []
        call = _Call(requests)
        self._calls.put(call)
        call.done.wait()
        if call.failure is not None:
            raise EngineDeadError(f"the engine failed: {_told(call.failure)}") from call.failure
        return [call.outcomes[request.request_id] for request in requests]

    def take_work(self) -> EngineWork:
        """What the engine has done since this was last taken."""
        with self._work_lock:
            taken, self._work = self._work, EngineWork()
        return taken

    def _drive(self) -> None:
        while True:
            try:
                self._serve_one_step()
            except BaseException as failure:  # every caller raises it again, in the thread that waits
                self._fail(failure)

    def _serve_one_step(self) -> None:
        self._let_in()
        assert self._engine is not None
        before = self._engine.stats()
        deltas = self._engine.step()
        self._note_work(before, self._engine.stats())
        for delta in deltas:
            if delta.answer is not None:
                outcome = delta.answer.error or delta.answer
                self._waiting.pop(delta.request_id).put(delta.request_id, outcome)

    def _let_in(self) -> None:
        """Give the engine every call that has come; with nothing else to do, wait for one."""
        while True:
            idle = self._engine is None or not self._engine.has_work
            try:
                call = self._calls.get(block=idle)
            except Empty:
                return
            self._waiting.update({request.request_id: call for request in call.requests})
            self._engine = self._engine or self._reload()
            for request in call.requests:
                try:
                    self._engine.add(request)
                except InputError as error:
                    self._waiting.pop(request.request_id).put(request.request_id, error)

    def _note_work(self, before: EngineStats, after: EngineStats) -> None:
        seconds = {stage: after.stage_seconds[stage] - spent for stage, spent in before.stage_seconds.items()}
        with self._work_lock:
            self._work += EngineWork(seconds, after - before)

    def _fail(self, failure: BaseException) -> None:
        """Tell every caller, and drop the engine."""
        log.error("the engine failed; it is dropped, and so is the process if it is on a GPU", exc_info=failure)
        if self._engine is not None and self._engine.family.device.type == "cuda":
            # Ray starts an actor anew, and gives it its shards again, when its process dies; not when it returns.
            os._exit(70)
        self._engine = None
        failed, self._waiting = self._waiting, {}
        for call in failed.values():
            call.failure = failure
            call.done.set()


def _told(error: BaseException) -> str:
    """An exception and what led to it, in one line."""
    links: list[str] = []
    link: BaseException | None = error
    while link is not None:
        links.append(f"{type(link).__name__}: {link}")
        link = link.__cause__
    return "; because of ".join(links)
