"""One engine, driven by one thread, for many callers: several shards are in its batch at once and it never drains.

A caller hands in its requests and sleeps until the last of them is answered. When the engine fails, the process ends:
a CUDA context that has seen an illegal access or a hardware fault fails for ever, and Ray replaces what has died.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue

from pipelines.failpoints import failpoint
from skipvision.engine import Answer, Engine, EngineCounts, EngineStats, Request
from skipvision.errors import InputError

log = logging.getLogger(__name__)

FAILED = 70
"""The exit code of a process whose engine failed."""


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
    done: threading.Event = field(default_factory=threading.Event)

    def put(self, request_id: str, outcome: Answer | InputError) -> None:
        self.outcomes[request_id] = outcome
        if len(self.outcomes) == len(self.requests):
            self.done.set()


class EngineThread:
    """Answers for any number of threads.

    Args:
        engine: is this one's alone from now on.
        stall_seconds: a step that takes longer is taken for hung, and ends the process.
    """

    def __init__(self, engine: Engine, *, stall_seconds: float = math.inf) -> None:
        self._engine = engine
        self._step_began: float | None = None
        self._calls: Queue[_Call] = Queue()
        self._waiting: dict[str, _Call] = {}
        self._work = EngineWork()
        self._work_lock = threading.Lock()
        threading.Thread(target=self._drive, name="engine", daemon=True).start()
        if stall_seconds < math.inf:
            threading.Thread(target=self._watch, args=[stall_seconds], name="watchdog", daemon=True).start()

    def answer(self, requests: Sequence[Request]) -> list[Answer | InputError]:
        """Answer all requests, in order; one that is wrong, or turns out to be, gets its error in its place.

        An engine that fails ends the process, so that none of the requests counts as answered.
        """
        assert all(request.n == 1 for request in requests), "a row has one answer"
        if not requests:
            return []
        call = _Call(requests)
        self._calls.put(call)
        call.done.wait()
        return [call.outcomes[request.request_id] for request in requests]

    def take_work(self) -> EngineWork:
        """What the engine has done since this was last taken."""
        with self._work_lock:
            taken, self._work = self._work, EngineWork()
        return taken

    def _drive(self) -> None:
        try:
            while True:
                self._serve_one_step()
        except BaseException:
            log.exception("the engine failed, and its process ends with it")
            # Not an exception, nor Ray's own way for an actor to leave: Ray starts an actor anew, and gives it its
            # shards again, when its process has died, and waits for ever for one that left politely.
            os._exit(FAILED)

    def _serve_one_step(self) -> None:
        self._let_in()
        before = self._engine.stats()
        self._step_began = time.monotonic()
        failpoint("step", self._prompts)
        deltas = self._engine.step()
        self._step_began = None
        self._note_work(before, self._engine.stats())
        for delta in deltas:
            if delta.answer is not None:
                outcome = delta.answer.error or delta.answer
                self._waiting.pop(delta.request_id).put(delta.request_id, outcome)

    def _prompts(self) -> str:
        """Of the requests that are not answered yet."""
        asked = {id(call): call.requests for call in self._waiting.values()}
        return " ".join(
            str(request.prompt) for requests in asked.values() for request in requests
            if request.request_id in self._waiting
        )  # fmt: skip

    def _watch(self, stall_seconds: float) -> None:
        while True:
            time.sleep(min(1.0, stall_seconds / 4))
            began = self._step_began
            if began is not None and time.monotonic() - began > stall_seconds:
                log.error("a step of the engine has taken more than %g seconds, and its process ends", stall_seconds)
                os._exit(FAILED)

    def _let_in(self) -> None:
        """Give the engine every call that has come; with nothing else to do, wait for one."""
        while True:
            try:
                call = self._calls.get(block=not self._engine.has_work)
            except Empty:
                return
            self._waiting.update({request.request_id: call for request in call.requests})
            for request in call.requests:
                try:
                    self._engine.add(request)
                except InputError as error:
                    self._waiting.pop(request.request_id).put(request.request_id, error)

    def _note_work(self, before: EngineStats, after: EngineStats) -> None:
        seconds = {stage: after.stage_seconds[stage] - spent for stage, spent in before.stage_seconds.items()}
        with self._work_lock:
            self._work += EngineWork(seconds, after - before)
