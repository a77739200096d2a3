"""What an engine counts: one frozen snapshot for whoever watches it, and each request's share of the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import get_args

from skipvision.engine.model_runner import ModelRunner
from skipvision.engine.pages import PagePool
from skipvision.engine.request import FinishReason
from skipvision.engine.scheduler import Scheduler, Step
from skipvision.engine.vision_cache import VisionCache


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCounts:
    """What an engine has done since it was made: numbers that only grow."""

    steps: int = 0
    """Forward passes of the decoder."""
    slots: int = 0
    """Places for requests, `max_running` in each step, and how many of them were taken by one that was read:"""
    slots_used: int = 0
    pages: int = 0
    """Pages for keys and values, all of them in each step, and how many of them were held:"""
    pages_held: int = 0
    preemptions: int = 0
    """How often a request gave its pages to an older one, and read its prompt and its output again later."""
    shared_prompt_tokens: int = 0
    """Prompt tokens that nobody had to read, because a neighbour began with them too."""
    vision_cache_hits: int = 0
    """Images whose tokens were at hand when their prompt was begun; and those that had to be encoded:"""
    vision_cache_misses: int = 0

    def __add__(self, other: EngineCounts) -> EngineCounts:
        return EngineCounts(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTS})

    def __sub__(self, earlier: EngineCounts) -> EngineCounts:
        return EngineCounts(**{name: getattr(self, name) - getattr(earlier, name) for name in _COUNTS})


_COUNTS = tuple(each.name for each in fields(EngineCounts))


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats(EngineCounts):
    """An engine at one moment, and what it has done up to then."""

    waiting: int
    running: int
    free_pages: int
    """Of the cache, now; and all that there are:"""
    num_pages: int
    vision_cache_bytes: int
    """Held now."""
    finished: Mapping[FinishReason, int]
    """Answers by how they ended."""
    stage_seconds: Mapping[str, float]
    """Seconds spent in `encode`, `merge`, `prefill`, `decode` and `sample`."""


class Meter:
    """Counts the steps of one engine, and charges them to the requests they are made for."""

    def __init__(
        self, scheduler: Scheduler, pool: PagePool, runner: ModelRunner, vision: VisionCache, *, max_running: int
    ) -> None:
        self._scheduler, self._pool, self._runner, self._vision = scheduler, pool, runner, vision
        self._max_running = max_running
        self._steps = self._slots_used = self._pages_held = 0
        self.finished: Counter[FinishReason] = Counter(dict.fromkeys(get_args(FinishReason), 0))

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Count a step that has its pages, and is read and answered inside the block."""
        before, held = self._runner.clock.seconds(), self._pool.num_pages - self._pool.free_pages
        yield
        charge(step, {stage: after - before[stage] for stage, after in self._runner.clock.seconds().items()})
        self._steps += 1
        self._slots_used += len(step.readings)
        self._pages_held += held

    def stats(self) -> EngineStats:
        """Everything, now."""
        return EngineStats(
            steps=self._steps,
            slots=self._steps * self._max_running,
            slots_used=self._slots_used,
            pages=self._steps * self._pool.num_pages,
            pages_held=self._pages_held,
            preemptions=self._scheduler.preemptions,
            shared_prompt_tokens=self._scheduler.shared_tokens,
            vision_cache_hits=self._runner.images.hits,
            vision_cache_misses=self._runner.images.misses,
            waiting=self._scheduler.num_waiting,
            running=self._scheduler.num_running,
            free_pages=self._pool.free_pages,
            num_pages=self._pool.num_pages,
            vision_cache_bytes=self._vision.bytes_held,
            finished=dict(self.finished),
            stage_seconds=self._runner.clock.seconds(),
        )


def charge(step: Step, seconds: Mapping[str, float]) -> None:
    """Share the seconds of one step out over its requests.

    The vision side by images: each that was encoded costs the same, one that was at hand nothing. The decoder by rows:
    a token costs the same whether it is read or generated, skipped or retained.

    Args:
        seconds: spent in this step, by stage; `prefill` and `decode` are the pass, shared out by rows already.
    """
    seeing = [reading.request for reading in step.chunks if reading.start == 0]
    images = sum(request.images_encoded for request in seeing)
    for request in seeing:
        if request.images_encoded:
            request.encode_seconds += (seconds["encode"] + seconds["merge"]) * request.images_encoded / images
    rows = sum(reading.stop - reading.start for reading in step.chunks)
    for reading in step.chunks:
        reading.request.prefill_seconds += seconds["prefill"] * (reading.stop - reading.start) / rows
    for reading in step.decodes:
        reading.request.decode_seconds += seconds["decode"] / len(step.decodes)
