"""What a replica publishes of its engine: steps, places, pages, seconds between tokens, and what its device costs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.devices import Device
from monitoring.publishing import Publishing
from service.meter import work_labels
from skipvision import metrics
from skipvision.engine import Answer
from skipvision.engine.driver import EngineDriver
from skipvision.engine.recording import record_work
from skipvision.prices import Held, Till, publish_prices


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a replica's numbers are named by, and where they go."""

    model: str
    skip: str
    retained_share: float
    """Of an image's visual tokens, with that setting."""
    publishing: Publishing


class ReplicaMeter:
    """Records what one engine does, once a second, for as long as its process lives."""

    def __init__(self, driver: EngineDriver, device: Device, published: Published) -> None:
        self._driver, self._device, self._published = driver, device, published
        self._extra = 0.0
        self._lock = threading.Lock()
        self._is_set_up = threading.Event()
        numbers = published.publishing.numbers(before=self._record)
        registry = numbers.registry
        self._own = registry.within(**work_labels(published.model, published.skip))
        self._asked = registry.within(**work_labels(published.model, published.skip, own_skip=True))
        self._till = Till(self._own, published.publishing.prices)
        self._till.open()
        publish_prices(registry, published.publishing.prices)
        self._is_set_up.set()

    def answered(self, answers: Sequence[Answer], *, own_skip: bool, extra_seconds: float) -> None:
        """A question was answered.

        Args:
            own_skip: whether it brought a setting of its own.
            extra_seconds: how much longer it would have taken with all visual tokens, modelled.
        """
        to = self._asked if own_skip else self._own
        for answer in answers:
            to.observe(metrics.TOKEN_GAP_SECONDS, *answer.gap_seconds)
        with self._lock:
            self._extra += extra_seconds

    def _record(self) -> None:
        self._is_set_up.wait()
        work, stats = self._driver.take_work(), self._driver.stats()
        with self._lock:
            extra, self._extra = self._extra, 0.0
        record_work(work, self._own)
        self._own.set(metrics.ENGINES, 1)
        self._own.set(metrics.QUEUE_DEPTH, stats.waiting, stage="engine")
        self._own.set(metrics.QUEUE_OLDEST, self._driver.oldest_waiting_seconds())
        self._own.set(metrics.RETENTION_TARGET, self._published.retained_share)
        units, busy = self._device.units, work.busy_seconds
        idle = max(0.0, work.held_seconds - busy)  # a step that was long is counted when it ends
        self._till.enter(
            Held(
                device=self._device.kind,
                capacity=self._device.capacity,
                busy=busy * units,
                idle=idle * units,
                modelled=max(0.0, busy + idle + extra) * units,
            )
        )
