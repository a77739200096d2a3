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
from collections.abc import Callable
from contextlib import AbstractContextManager

import ray
from ray._private.state import state  # Ray's own libraries look there too; nothing public tells

from pipelines.attempts import Room

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
        self._room = Room()
        threading.Thread(target=self._watch, name="drain", daemon=True).start()

    def working(self) -> AbstractContextManager[None]:
        """Around the work on a shard; after the notice nobody gets in."""
        return self._room.entered(alone=False)

    def _watch(self) -> None:
        until = self._notice()
        log.warning("this node is being drained: no more shards are begun")
        try:
            left = max(0.0, until - time.time() - MARGIN_SECONDS) if until else None
            if not self._room.take(timeout=left):
                log.warning("shards that cannot be finished in time are handed back")
            self._hand_back()
        except Exception:
            log.exception("handing back failed; the shards count as failed with this process")
        finally:
            self._leave(DRAINED)  # in any case: nobody would ever be let in again

    def _notice(self) -> float:
        """Wait until the node is to go; when that will be."""
        while True:
            try:
                if (until := self._deadline()) is not None:
                    return until
            except Exception:
                log.exception("whether this node is being drained could not be seen; looking again")
            time.sleep(LOOK_SECONDS)


def deadline_of_this_node() -> float | None:
    """When this node will be gone, in seconds of the epoch, 0.0 if nobody says; None if it is not being drained."""
    nodes: dict[str, int] = state.get_draining_nodes()
    milliseconds = nodes.get(ray.get_runtime_context().get_node_id())
    return None if milliseconds is None else milliseconds / 1000
