"""Seconds by stage of the engine's work, by the clock of the device that does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

import torch

STAGES = ("encode", "merge", "prefill", "decode", "sample")


class Mark(Protocol):
    """A moment in the order of a device's work."""

    def seconds_until(self, later: Any) -> float:
        """How long after this mark another of its kind was; waits until the device has passed that."""
        ...


class HostMark:
    """Now. What was asked before it is done."""

    def __init__(self) -> None:
        self._at = perf_counter()

    def seconds_until(self, later: HostMark) -> float:
        """See `Mark`."""
        return later._at - self._at


class CudaMark:
    """When the current stream has done what was asked before this."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def seconds_until(self, later: CudaMark) -> float:
        """See `Mark`."""
        later._event.synchronize()
        return float(self._event.elapsed_time(later._event)) / 1000


class StageClock:
    """Cumulative seconds. Measuring makes nobody wait; reading does, where a GPU has not come so far."""

    def __init__(self, device: torch.device) -> None:
        self._mark: type[HostMark] | type[CudaMark] = CudaMark if device.type == "cuda" else HostMark
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._unread: list[tuple[Mark, Mark, dict[str, float]]] = []

    @contextmanager
    def timing(self, **shares: float) -> Iterator[None]:
        """Add the block's seconds to stages, by their shares."""
        start = self._mark()
        yield
        self._unread.append((start, self._mark(), shares))

    def seconds(self) -> dict[str, float]:
        """Up to now, by stage."""
        for start, stop, shares in self._unread:
            seconds = start.seconds_until(stop)
            for stage, share in shares.items():
                self._seconds[stage] += share * seconds
        self._unread.clear()
        return dict(self._seconds)
