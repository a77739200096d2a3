"""Named places where a test can make a process fail. Without the environment variable they do nothing.

    SKIPVISION_FAILPOINTS='{"decode": {"what": "segfault", "match": "bomb.png", "times": 2, "count_in": "/tmp/counts"}}'

`match` is looked for in what the place is about, such as an image's name; left out, everything matches. `times` is how
often it happens at most, in all processes that share `count_in`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

VARIABLE = "SKIPVISION_FAILPOINTS"
_FOR_EVER = 1e6


def failpoint(name: str, about: str = "") -> None:
    """Fail here, if a test wishes it.

    Raises:
        OSError, MemoryError: as the test wishes; other failures end or stop the process.
    """
    if (wish := _wishes().get(name)) is None or wish.get("match", "") not in about or not _in_time(wish):
        return
    match wish["what"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(3)
        case "polite exit":
            sys.exit(3)
        case "hang":
            time.sleep(_FOR_EVER)
        case "memory":
            hog = [bytearray(64 << 20) for _ in range(1 << 20)]
            raise MemoryError(len(hog))
        case "disk full":
            raise OSError(28, "No space left on device")
        case unknown:
            raise ValueError(f"{VARIABLE} wishes {unknown!r} at {name}, which nothing here can do")


@cache
def _wishes() -> dict[str, dict[str, Any]]:
    wishes: dict[str, dict[str, Any]] = json.loads(os.environ.get(VARIABLE, "{}"))
    return wishes


def _in_time(wish: dict[str, Any]) -> bool:
    """Whether it has not happened often enough; if so, it is counted."""
    if "times" not in wish:
        return True
    counted = Path(wish["count_in"])
    counted.mkdir(parents=True, exist_ok=True)
    if len(list(counted.iterdir())) >= wish["times"]:
        return False
    (counted / uuid4().hex).touch()
    return True
