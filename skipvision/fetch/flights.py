"""Fetches that are under way: whoever asks for the same meanwhile waits for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from yarl import URL


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[bytes]
    passengers: int = 0


class Flights:
    """One fetch for all who want the same URL at the same time. It ends when the last of them has gone away."""

    def __init__(self) -> None:
        self._under_way: dict[URL, _Flight] = {}

    async def join(self, url: URL, start: Callable[[URL], Coroutine[Any, Any, bytes]]) -> bytes:
        """What `start` fetches for `url`, begun now or by somebody before."""
        flight = self._under_way.get(url)
        if flight is None:
            flight = self._under_way[url] = _Flight(asyncio.create_task(start(url)))
        flight.passengers += 1
        try:
            return await asyncio.shield(flight.task)  # one who is cancelled must not take the others along
        finally:
            flight.passengers -= 1
            if not flight.passengers:
                del self._under_way[url]
                flight.task.cancel()
