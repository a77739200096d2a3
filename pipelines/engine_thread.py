"""One engine for many callers: several shards are in its batch at once and it never drains.

A caller hands in its requests and sleeps until the last of them is answered.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from skipvision.engine import Answer, Engine, Request
from skipvision.engine.driver import EngineDriver, EngineWork, News, Refused
from skipvision.errors import InputError


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
        stall_seconds, held_since: see `EngineDriver`.
    """

    def __init__(self, engine: Engine, *, stall_seconds: float = math.inf, held_since: float | None = None) -> None:
        self._waiting: dict[str, _Call] = {}
        self._driver = EngineDriver(engine, self._hear, stall_seconds=stall_seconds, held_since=held_since)

    def answer(self, requests: Sequence[Request]) -> list[Answer | InputError]:
        """Answer all requests, in order; one that is wrong, or turns out to be, gets its error in its place.

        An engine that fails ends the process, so that none of the requests counts as answered.
        """
        assert all(request.n == 1 for request in requests), "a row has one answer"
        if not requests:
            return []
        call = _Call(requests)
        self._waiting.update({request.request_id: call for request in requests})
        self._driver.submit(*requests)
        call.done.wait()
        return [call.outcomes[request.request_id] for request in requests]

    def forget_images(self) -> None:
        """Have every image encoded again that is asked about from now on."""
        self._driver.between_steps(Engine.forget_images).result()

    def take_work(self) -> EngineWork:
        """What the engine has done since this was last taken."""
        return self._driver.take_work()

    def _hear(self, news: Sequence[News]) -> None:
        for each in news:
            outcome = _outcome(each)
            if outcome is not None:
                self._waiting.pop(each.request_id).put(each.request_id, outcome)


def _outcome(news: News) -> Answer | InputError | None:
    """None: the request is not finished."""
    if not isinstance(news, Refused):
        return news.answer and (news.answer.error or news.answer)
    assert isinstance(news.error, InputError), "the line of a job's engine has no end"
    return news.error
