"""A thread of its own for an engine: requests go in from anywhere, and what comes of them is told step by step.

When the engine fails, the process ends: a CUDA context that has seen an illegal access or a hardware fault fails for
ever, and whoever started the process replaces what has died.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from skipvision.engine.engine import Engine
from skipvision.engine.request import Delta, Request
from skipvision.engine.stats import EngineCounts, EngineStats
from skipvision.errors import CapacityError, InputError
from skipvision.failpoints import failpoint

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILED = 70
"""The exit code of a process whose engine failed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the engine did not take."""

    request_id: str
    error: InputError | CapacityError


News = Delta | Refused


@dataclass(frozen=True, slots=True)
class EngineWork:
    """What engines did in some time."""

    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage of the metrics catalogue; none where nothing was done."""
    counts: EngineCounts = field(default_factory=EngineCounts)
    held_seconds: float = 0.0
    """From one look to the next, whether engines worked or waited."""

    @property
    def busy_seconds(self) -> float:
        """For which they worked."""
        return sum(self.stage_seconds.values())

    def __add__(self, other: EngineWork) -> EngineWork:
        stages = sorted(self.stage_seconds.keys() | other.stage_seconds.keys())
        seconds = {s: self.stage_seconds.get(s, 0.0) + other.stage_seconds.get(s, 0.0) for s in stages}
        return EngineWork(seconds, self.counts + other.counts, self.held_seconds + other.held_seconds)


class EngineDriver:
    """Moves one engine on for as long as it has something to do.

    Args:
        engine: is this one's alone from now on.
        tell: is called in the driver's thread with all that is new after each step, and must not wait. Of each answer
            of a request the last delta carries the `Answer`; a request that is refused has no other news.
        stall_seconds: a step that takes longer is taken for hung, and ends the process.
        held_since: on `time.monotonic`'s clock, when the engine's device began to be held. None: now.
    """

    def __init__(
        self,
        engine: Engine,
        tell: Callable[[Sequence[News]], None],
        *,
        stall_seconds: float = math.inf,
        held_since: float | None = None,
    ) -> None:
        self._engine, self._tell = engine, tell
        self._held_since = time.monotonic() if held_since is None else held_since
        self._step_began: float | None = None
        self._wishes: SimpleQueue[Request | str | Callable[[], None]] = SimpleQueue()
        self._unfinished: dict[str, _Unfinished] = {}
        self._work = EngineWork()
        self._work_lock = threading.Lock()
        threading.Thread(target=self._drive, name="engine", daemon=True).start()
        if stall_seconds < math.inf:
            threading.Thread(target=self._watch, args=[stall_seconds], name="watchdog", daemon=True).start()

    def submit(self, *requests: Request) -> None:
        """Put requests in the engine's line."""
        for request in requests:
            self._wishes.put(request)

    def cancel(self, request_id: str) -> None:
        """Stop a request before the next step; one that is finished already is none to stop."""
        self._wishes.put(request_id)

    def between_steps(self, work: Callable[[Engine], T]) -> Future[T]:
        """Have something done in the engine's thread, where nothing else touches the model; all others wait for it."""
        done: Future[T] = Future()
        self._wishes.put(partial(_do, work, self._engine, done))
        return done

    def stats(self) -> EngineStats:
        """What the engine is doing now, and what it has done so far."""
        return self._engine.stats()

    def oldest_waiting_seconds(self) -> float:
        """How long the head of the engine's line has waited; 0.0: nobody waits."""
        return self._engine.oldest_waiting_seconds()

    def take_work(self) -> EngineWork:
        """What the engine has done since this was last taken."""
        with self._work_lock:
            taken, self._work = self._work, EngineWork()
            now = time.monotonic()
            held, self._held_since = now - self._held_since, now
        return replace(taken, held_seconds=held)

    def _drive(self) -> None:
        try:
            while True:
                self._do_one_step()
        except BaseException:
            log.exception("the engine failed, and its process ends with it")
            # Not an exception, nor Ray's own way for an actor to leave: Ray starts an actor anew, and gives it its
            # work again, when its process has died, and waits for ever for one that left politely.
            os._exit(FAILED)

    def _do_one_step(self) -> None:
        refused = self._heed_wishes()
        before = self._engine.stats()
        self._step_began = time.monotonic()
        failpoint("step", self._prompts)
        deltas = self._engine.step()
        self._step_began = None
        self._note_work(before, self._engine.stats())
        for delta in deltas:
            if delta.answer is not None:
                self._unfinished[delta.request_id].answers -= 1
                if not self._unfinished[delta.request_id].answers:
                    del self._unfinished[delta.request_id]
        if refused or deltas:
            self._tell([*refused, *deltas])

    def _heed_wishes(self) -> list[News]:
        """Give the engine every wish that has come; with nothing else to do, wait for one. What it refused."""
        refused: list[News] = []
        while True:
            try:
                wish = self._wishes.get(block=not (self._engine.has_work or refused))
            except Empty:
                return refused
            if isinstance(wish, str):
                self._engine.cancel(wish)
                continue
            if not isinstance(wish, Request):
                wish()
                continue
            try:
                self._engine.add(wish)
                self._unfinished[wish.request_id] = _Unfinished(wish, wish.n)
            except (InputError, CapacityError) as error:
                refused.append(Refused(wish.request_id, error))

    def _prompts(self) -> str:
        """Of the requests that are not answered yet."""
        return " ".join(str(each.request.prompt) for each in self._unfinished.values())

    def _watch(self, stall_seconds: float) -> None:
        while True:
            time.sleep(min(1.0, stall_seconds / 4))
            began = self._step_began
            if began is not None and time.monotonic() - began > stall_seconds:
                log.error("a step of the engine has taken more than %g seconds, and its process ends", stall_seconds)
                os._exit(FAILED)

    def _note_work(self, before: EngineStats, after: EngineStats) -> None:
        seconds = {stage: after.stage_seconds[stage] - spent for stage, spent in before.stage_seconds.items()}
        with self._work_lock:
            self._work += EngineWork(seconds, after - before)


def _do(work: Callable[[Engine], T], engine: Engine, done: Future[T]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(work(engine))
    except Exception as error:  # it is raised where the work is waited for
        done.set_exception(error)


@dataclass(slots=True)
class _Unfinished:
    request: Request
    answers: int
    """That are still to be given."""
