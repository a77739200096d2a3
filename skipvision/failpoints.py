"""Named places where a test can make a process fail. Without the environment variable they do nothing.

    SKIPVISION_FAILPOINTS='{"decode": {"what": "segfault", "match": "bomb.png", "times": 2, "count_in": "/tmp/counts"}}'

`match` is looked for in what the place is about, such as an image's or a file's name; left out, everything matches.
`after` is how often a matching place is passed unharmed first, and `times` how often it fails then, without end if left
out. Both count in this process, or in all that share `count_in`, where each pass leaves a file that is named by the
time and the process. `pause` lasts until the file `until` is there; `out of memory` takes so many `bytes`, bit by bit,
for the process to be ended by who watches over the machine's memory. With `@` before it, the variable names a file that
holds the wishes.

    decode             before an image is decoded
    answer             before a window of rows is given to the engine
    step               before a step of the engine, about the prompts that it works on
    read, list         before files of the job's folder are read, or listed
    create, replace, swap
                       before a file of the job's folder is written
    staged             on a disk: a file's bytes are there, its name is not
    created            a file is there, and nobody has been told
    remove             before a file of the job's folder is removed
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "SKIPVISION_FAILPOINTS"
_FOR_EVER = 1e6
_BIT_BYTES = 64 << 20


def failpoint(name: str, about: str | Callable[[], str] = "") -> None:
    """Fail here, if a test wishes it.

    Args:
        about: what the place is about, or a way to find out.

    Raises:
        OSError, MemoryError, GenericError, SystemExit: as the test wishes; other failures end or stop the process.
    """
    if (wish := _wishes().get(name)) is None:
        return
    if wish.get("match", "") not in (about if isinstance(about, str) else about()) or not _is_due(name, wish):
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
        case "pause":
            while not Path(wish["until"]).exists():
                time.sleep(0.02)
        case "hang":
            time.sleep(_FOR_EVER)
        case "store error":
            from obstore.exceptions import GenericError  # an engine without a job has no stores

            raise GenericError("the store answers 503 Slow Down")
        case "memory error":
            raise MemoryError
        case "memory":
            hog = [bytearray(64 << 20) for _ in range(1 << 20)]
            raise MemoryError(len(hog))
        case "out of memory":
            _take_memory(wish["bytes"])
        case "disk full":
            raise OSError(28, "No space left on device")
        case unknown:
            raise ValueError(f"{VARIABLE} wishes {unknown!r} at {name}, which nothing here can do")


def _take_memory(bound_bytes: int) -> None:
    """Hold ever more memory, as slowly as it takes to be seen."""
    held: list[bytearray] = []
    while len(held) * _BIT_BYTES < bound_bytes:
        held.append(bytearray(_BIT_BYTES))
        time.sleep(0.05)
    time.sleep(_FOR_EVER)


@cache
def _wishes() -> dict[str, dict[str, Any]]:
    said = os.environ.get(VARIABLE, "{}")
    wishes: dict[str, dict[str, Any]] = json.loads(Path(said[1:]).read_text() if said.startswith("@") else said)
    return wishes


_passed: Counter[str] = Counter()


def _is_due(name: str, wish: dict[str, Any]) -> bool:
    """Whether this is one of the times that fail; it is counted."""
    first = wish.get("after", 0)
    return bool(first <= _times_passed(name, wish.get("count_in")) < first + wish.get("times", math.inf))


def _times_passed(name: str, count_in: str | None) -> int:
    if count_in is None:
        _passed[name] += 1
        return _passed[name] - 1
    counted = Path(count_in)
    counted.mkdir(parents=True, exist_ok=True)
    before = len(list(counted.iterdir()))
    (counted / f"{time.time_ns()}-{os.getpid()}").touch()
    return before
