"""A job that is told to end, as a scheduler tells a pod, ends with a sentence instead of a stack of Ray's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from skipvision.errors import JobStoppedError


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Inside the `with` block SIGTERM raises, if this is the thread that can hear of it.

    Raises:
        JobStoppedError: SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise JobStoppedError("it was told to end")
