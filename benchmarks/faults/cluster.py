"""Whole jobs on a real Ray cluster of a head and three workers, broken at one place: a process, a node, or everything.

The failure is timed by a place of `skipvision.failpoints`. What fails inside the process that passes there fails by
itself; for what comes from outside, the process waits at that place until it has come.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from benchmarks.faults.fittings import PLAIN, Fitting, MemoryOfItsOwn, Network, SharedMemoryOfItsOwn
from benchmarks.faults.matrix import Point, has_struck, struck_process, wish
from benchmarks.faults.nodes import Nodes, send, signal_tree
from benchmarks.faults.protocol import Played
from benchmarks.faults.running import Attempt, Attempts
from benchmarks.faults.verdict import Row, judge, rows_of
from pipelines.folder import JobFolder
from skipvision.config import JobConfig

INSIDE = ("kill", "polite exit", "store error", "disk full", "memory error")
"""Kinds that happen in the process that passes the point."""
OUTSIDE_A_WORKER = ("node killed", "node drained", "node frozen")
OUTSIDE = ("driver killed", "driver frozen", "cluster killed")
_MEMORY, _NETWORK, _SHARED_MEMORY = MemoryOfItsOwn(), Network(), SharedMemoryOfItsOwn()
FITTED: dict[str, Fitting] = {"out of memory": _MEMORY, "partition": _NETWORK, "shared memory full": _SHARED_MEMORY}
"""Kinds for which nodes have to be fitted, at the points of `_FITTED_POINTS`."""
_FITTED_POINTS = ("reading a shard", "answering", "before a commit", "committed, nobody was told")

MOST_TAKEN_BYTES = 3 << 30
"""By a process that takes memory until it is ended for it."""
_PATIENCE = 240.0
_MOST_ATTEMPTS = 5
_ZOMBIE_SECONDS = 5.0
"""For what wakes to do its harm before the job is looked at."""


def kinds_at(point: Point) -> tuple[str, ...]:
    """What can happen to a job on a cluster at a point."""
    inside = tuple(kind for kind in INSIDE if kind in point.kinds)
    fitted = FITTED if point.name in _FITTED_POINTS else ()
    return (*inside, *OUTSIDE) if point.in_driver else (*inside, *OUTSIDE_A_WORKER, *OUTSIDE, *fitted)


class ClusterMatrix:
    """Plays cells of the matrix, one after another, on one cluster as long as that lives.

    Args:
        config: the job; its output is replaced in each cell.
        scratch: a folder for what processes tell.
    """

    def __init__(self, config: JobConfig, scratch: Path) -> None:
        self.config, self._scratch = config, scratch
        self._attempts = Attempts(scratch, patience=_PATIENCE)
        self._wishes = scratch / "wishes.json"
        self._wishes.write_text("{}")
        self.nodes = Nodes(self._wishes)

    def undisturbed_rows(self, config: JobConfig, name: str) -> list[Row]:
        """The rows of a job when nobody breaks it; run once for each name."""
        config = replace(config, output=str(self._scratch / name))
        if not Path(config.output).exists():
            ended = self._finish(config, Counter())
            assert ended == "done", ended
        return rows_of(JobFolder(config.output))

    def play_wishes(self, config: JobConfig, wishes: dict[str, Any]) -> Counter[str]:
        """Run a job to its end in which the same things fail in every attempt; how attempts ended."""
        ends: Counter[str] = Counter()
        ends[self._finish(config, ends, wishes)] += 1
        return ends

    def play(self, point: Point, kind: str, output: str, *, repeat: int) -> Played:
        """Break a job at `point`, at a pass of it that `repeat` draws, and let others finish it."""
        undisturbed = self.undisturbed_rows(self.config, "undisturbed-on-a-cluster")
        with self.nodes.fitted(FITTED.get(kind, PLAIN)):
            return self._play(point, kind, output, repeat, undisturbed)

    def _play(self, point: Point, kind: str, output: str, repeat: int, undisturbed: Sequence[Row]) -> Played:
        shards = -(-len(undisturbed) // self.config.rows_per_shard)
        after = random.Random(f"{point.name} {kind} {repeat}").randrange(shards) if point.often else 0
        count_in, go = self._scratch / uuid4().hex, self._scratch / f"{uuid4().hex}.go"
        happens_inside = kind in (*INSIDE, "out of memory")
        wishes = wish(point, kind if happens_inside else "pause", count_in, after=after)
        wishes[point.place] |= {"until": str(go), "bytes": MOST_TAKEN_BYTES}
        ends: Counter[str] = Counter()
        config = replace(self.config, output=output)
        first = self.start(config, wishes)
        waking: Callable[[], Any] | None = None
        victim = None if kind in INSIDE else _wait_for_pass(first, count_in, after)
        is_as_meant = True
        if victim is not None:
            waking = self._strike(kind, victim, first)
            is_as_meant = kind != "out of memory" or not _is_there(victim)
            if waking is None:
                go.touch()
        ended = first.how_it_ended() if first.wait_ended_or_frozen() else "frozen"
        ends[ended] += 1
        if ended != "done":
            ends[self._finish(config, ends)] += 1
        if waking is not None:
            is_as_meant = _is_there(victim)  # else there is nothing that could wake to do harm
            go.touch()
            waking()
            time.sleep(_ZOMBIE_SECONDS)
        if ended == "frozen":
            first.wake()
            ends[f"{first.how_it_ended()} when woken" if first.wait_ended_or_frozen() else "frozen again"] += 1
        first.signal(signal.SIGKILL)
        return Played(judge(JobFolder(output), undisturbed), is_as_meant and has_struck(count_in, after=after), ends)

    def start(self, config: JobConfig, wishes: dict[str, Any]) -> Attempt:
        """Start an attempt on the cluster; what is wished fails in all of its processes."""
        self._wishes.write_text("{}")  # nodes that start now are spared
        address = self.nodes.address()
        self._wishes.write_text(json.dumps(wishes))
        return self._attempts.start(replace(config, ray_address=address), f"@{self._wishes}")

    def _finish(self, config: JobConfig, ends: Counter[str], wishes: dict[str, Any] | None = None) -> str:
        """Start attempts until one is done; how the last one ended."""
        ended = "not started"
        for _ in range(_MOST_ATTEMPTS):
            attempt = self.start(config, wishes or {})
            ended = attempt.how_it_ended() if attempt.wait_ended_or_frozen() else "frozen by itself"
            if ended == "done":
                break
            ends[ended] += 1
        return ended

    def _strike(self, kind: str, victim: int, driver: Attempt) -> Callable[[], Any] | None:
        """Make the failure happen to the process that waits; what ends it, if it lasts."""
        match kind:
            case "node killed":
                signal_tree(self.nodes.of(victim), signal.SIGKILL)
            case "node frozen":
                frozen = signal_tree(self.nodes.of(victim), signal.SIGSTOP)
                return lambda: [send(process, signal.SIGCONT) for process in frozen]
            case "node drained":
                self.nodes.drain(self.nodes.of(victim))
            case "driver killed":
                driver.signal(signal.SIGKILL)
            case "driver frozen":
                driver.signal(signal.SIGSTOP)
            case "cluster killed":
                self.nodes.kill_all()
            case "partition":
                return _NETWORK.pull(self.nodes.of(victim))
            case "shared memory full":
                _SHARED_MEMORY.fill(self.nodes.of(victim))
            case "out of memory":
                _wait_for_end(victim)  # by its raylet
            case _:
                raise ValueError(kind)
        return None


def _is_there(process: int | None) -> bool:
    return process is not None and psutil.pid_exists(process)


def _wait_for_end(process: int) -> None:
    until = time.monotonic() + _PATIENCE
    while _is_there(process) and time.monotonic() < until:
        time.sleep(0.1)


def _wait_for_pass(driver: Attempt, count_in: Path, after: int) -> int | None:
    """The process that waits at the point; None if the job ended before it came there."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if (process := struck_process(count_in, after=after)) is not None:
            return process
        if driver.has_ended(0.02):
            return None
    return None
