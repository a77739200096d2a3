"""Numbers on their way to a hub: recorded here, told there once a second, and again until it says that it has them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from uuid import uuid4

from skipvision.metrics.hub import Hub, Report
from skipvision.metrics.registry import Delta, Registry

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""A process that has nothing to tell says so, as often as that."""


class Numbers(Protocol):
    """Where a job or a service records what it counts."""

    registry: Registry
    """Of this process: what is recorded here is published within a second or so."""

    def tell(self, source: str, number: int, delta: Delta) -> None:
        """Have something counted that may have been counted before, perhaps by another process; see `Report`."""

    def unknown(self, source: str, numbers: Iterable[int]) -> list[int]:
        """Those of a source's reports that were not counted."""

    def close(self) -> None:
        """Tell the rest."""


class LocalNumbers:
    """A hub in this process, which publishes itself on a port, or not at all."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.registry = hub.registry

    def tell(self, source: str, number: int, delta: Delta) -> None:
        self._hub.report(Report(source=source, number=number, delta=delta, process=source))

    def unknown(self, source: str, numbers: Iterable[int]) -> list[int]:
        return self._hub.unknown(source, numbers)

    def close(self) -> None:
        self._hub.close()


class Feed:
    """Tells a hub elsewhere, from a thread of its own.

    Args:
        send: hands reports to the hub and returns when it has saved them; raises when it could not.
        ask: see `Numbers.unknown`.
        before: is called in the feed's thread before each look at the registry, to record what is due.
        seconds: between two tellings.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Report]], None],
        ask: Callable[[str, Sequence[int]], list[int]],
        *,
        before: Callable[[], object] = lambda: None,
        seconds: float = 1.0,
    ) -> None:
        self.registry = Registry()
        self._send, self._ask, self._before, self._seconds = send, ask, before, seconds
        self._source, self._told = uuid4().hex, 0
        self._waiting: list[Report] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._was_told_of_failure = False
        self._last_told = 0.0
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def tell(self, source: str, number: int, delta: Delta) -> None:
        with self._lock:
            self._waiting.append(Report(source=source, number=number, delta=delta, process=self._source))

    def unknown(self, source: str, numbers: Iterable[int]) -> list[int]:
        numbers = list(numbers)
        try:
            return self._ask(source, numbers)
        except Exception:  # the hub may be starting again; it will know for itself what it has counted
            log.warning("the metrics hub does not answer; it will be told everything", exc_info=True)
            return numbers

    def close(self, patience_seconds: float = 60.0) -> None:
        """Tell the rest, for so long at most."""
        self._closing.set()
        self._thread.join(patience_seconds)
        if self._waiting:
            log.error("the metrics hub was not told %d reports: it does not answer", len(self._waiting))

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            self._tell_what_waits()
        while not self._tell_what_waits():
            time.sleep(self._seconds / 4)

    def _tell_what_waits(self) -> bool:
        """Whether all that was recorded before has been told."""
        self._before()
        with self._lock:
            has_all = self._add_own()
            telling = list(self._waiting)
        if not telling:
            return True
        try:
            self._send(telling)
        except Exception:  # whatever it is, it may pass; what was not told stays
            if not self._was_told_of_failure:
                log.warning("the metrics hub does not answer; what is counted is kept for it", exc_info=True)
            self._was_told_of_failure = True
            return False
        self._was_told_of_failure = False
        self._last_told = time.monotonic()
        with self._lock:
            del self._waiting[: len(telling)]
            return has_all and not self._waiting

    def _add_own(self) -> bool:
        """Take up this process's own numbers: one report at a time, so that what comes later is added up meanwhile.

        Returns:
            Whether they were taken up: they are not while an earlier report of them waits.
        """
        if any(report.source == self._source for report in self._waiting):
            return False
        delta = self.registry.take()
        if delta or time.monotonic() - self._last_told > BEAT_SECONDS:
            self._told += 1
            self._waiting.append(Report(source=self._source, number=self._told, delta=delta))
        return True
