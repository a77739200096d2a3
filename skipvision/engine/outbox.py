"""What has been said and not yet been read, and who is to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from skipvision.engine.request import Delta


class Outbox:
    """Deltas on their way out: those of followed requests wait for their follower, the others for anyone."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._followed: set[str] = set()

    @property
    def has_unfollowed(self) -> bool:
        return any(delta.request_id not in self._followed for delta in self._deltas)

    def put(self, *deltas: Delta) -> None:
        self._deltas.extend(deltas)

    def take_unfollowed(self) -> list[Delta]:
        """Everything that nobody in particular waits for."""
        return self._take(lambda request_id: request_id not in self._followed)

    def take(self, request_ids: Set[str]) -> list[Delta]:
        """Everything that these requests said."""
        return self._take(lambda request_id: request_id in request_ids)

    @contextmanager
    def following(self, request_ids: Set[str]) -> Iterator[None]:
        """Inside the block these requests are followed; what is unread of them at its end, nobody will read."""
        self._followed |= request_ids
        try:
            yield
        finally:
            self._followed -= request_ids
            self.take(request_ids)

    def _take(self, is_wanted: Callable[[str], bool]) -> list[Delta]:
        wanted = [delta for delta in self._deltas if is_wanted(delta.request_id)]
        self._deltas = [delta for delta in self._deltas if not is_wanted(delta.request_id)]
        return wanted
