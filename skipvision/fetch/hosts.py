"""What the fetcher knows of hosts: how many connections each has, and which have stopped answering."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

from skipvision.errors import FetchError

_ENOUGH_FAILURES = 20
_PROBE_EVERY_SECONDS = 10.0
_MOST_REMEMBERED = 4096
"""Hosts in trouble; those that failed longest ago are forgotten, so that a job of dead hosts does not keep them all."""


@dataclass(slots=True)
class _Trouble:
    since: float
    failures: int = 0
    next_probe: float = 0.0


class Hosts:
    """Turns at each host, so that no job becomes an attack on it, and a memory of those that fail.

    A dead host costs a timeout for each of its URLs, and a million of them would hold a job for weeks. It is given up
    by time, not by the number of failures alone: those come by the dozen when a server restarts.
    """

    def __init__(self, *, max_per_host: int, patience_seconds: float) -> None:
        self._max_per_host, self._patience_seconds = max_per_host, patience_seconds
        # Weak, so that a job over a million hosts does not keep a million of them.
        self._turns: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()

    def turn(self, host: str) -> asyncio.Semaphore:
        """What to hold while the host is asked."""
        return self._turns.setdefault(host, asyncio.Semaphore(self._max_per_host))

    def check(self, host: str) -> None:
        """Raise `fetch_host_failing` when the host is given up and it is not yet time to ask again."""
        trouble, now = self._troubles.get(host), monotonic()
        if trouble is None or trouble.failures < _ENOUGH_FAILURES or now < trouble.since + self._patience_seconds:
            return
        if now < trouble.next_probe:
            raise FetchError(
                "the server has failed for some time and is left alone for now; try again later",
                code="fetch_host_failing",
            )
        trouble.next_probe = now + _PROBE_EVERY_SECONDS

    def answered(self, host: str) -> None:
        """The host did what it should, or said why not."""
        self._troubles.pop(host, None)

    def failed(self, host: str) -> None:
        """The host could not be reached, was too slow, or said that it is failing."""
        self._troubles.setdefault(host, _Trouble(monotonic())).failures += 1
        self._troubles.move_to_end(host)
        if len(self._troubles) > _MOST_REMEMBERED:
            self._troubles.popitem(last=False)
