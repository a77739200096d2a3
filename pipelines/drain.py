"""What a worker does when its node is about to be taken away: a spot notice, a scale-down, a pod that is ended.

Ray tells the nodes that are being drained, and until when. A worker on one of them begins no more shards and finishes
those that it has; what it cannot finish in time it hands back. Then it ends its process, and Ray starts it again on
another node.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private.state import state  # Ray's own libraries look there too; nothing public tells

log = logging.getLogger(__name__)

DRAINED = 71
"""The exit code of a process that made room."""
LOOK_SECONDS = 1.0
MARGIN_SECONDS = 3.0
"""Kept of the time that is left, for handing back."""


class Drain:
    """Lets shards in until the notice comes.

    Args:
        deadline: when the node will be gone, in seconds of the epoch; 0.0: some time. None: it stays.
        hand_back: called before the process ends with shards in it.
        leave: ends the process.
    """

    def __init__(
        self,
        deadline: Callable[[], float | None],
        hand_back: Callable[[], None],
        *,
        leave: Callable[[int], None] = os._exit,  # hard: Ray waits for ever for an actor that left politely
    ) -> None:
        self._deadline, self._hand_back, self._leave = deadline, hand_back, leave
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        threading.Thread(target=self._watch, name="drain", daemon=True).start()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the work on a shard; after the notice nobody gets in."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _watch(self) -> None:
        while (until := self._deadline()) is None:
            time.sleep(LOOK_SECONDS)
        left = max(0.0, until - time.time() - MARGIN_SECONDS) if until else None
        with self._changed:
            self._closed = True
            log.warning("this node is being drained: no more shards are begun, %d are finished", self._inside)
            if not self._changed.wait_for(lambda: not self._inside, timeout=left):
                log.warning("%d shards cannot be finished in time and are handed back", self._inside)
        self._hand_back()
        self._leave(DRAINED)


def deadline_of_this_node() -> float | None:
    """When this node will be gone, in seconds of the epoch, 0.0 if nobody says; None if it is not being drained."""
    nodes: dict[str, int] = state.get_draining_nodes()
    milliseconds = nodes.get(ray.get_runtime_context().get_node_id())
    return None if milliseconds is None else milliseconds / 1000
