"""Jobs on a cluster to which something happens every few seconds, by lot, until they are done."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.cluster import ClusterMatrix
from benchmarks.faults.nodes import send, signal_tree
from benchmarks.faults.protocol import Played
from benchmarks.faults.running import Attempt
from benchmarks.faults.verdict import judge
from pipelines.folder import JobFolder
from skipvision.config import JobConfig
from skipvision.scenes import scene

ROWS = 60
MOST_STRIKES = 8
"""Of one job; a job that is struck for ever has no time to end."""
_PAUSE = (4.0, 20.0)
_NAP = (1.0, 15.0)
_KINDS = {"worker killed": 4, "node killed": 2, "node frozen": 2, "driver killed": 2, "driver frozen": 1,
          "cluster killed": 1}  # fmt: skip
"""And how often, beside the others."""


@dataclass(slots=True)
class _Sleeper:
    """Frozen processes, and when they wake."""

    until: float
    wake: Callable[[], Any]


class Chaos:
    """Plays jobs on the cluster of a `ClusterMatrix`."""

    def __init__(self, cluster: ClusterMatrix, scratch: Path) -> None:
        self._cluster, self._folder = cluster, scratch / "chaos"
        images = self._folder / "images"
        images.mkdir(parents=True)
        for row in range(ROWS - 1):
            scene(row).render(128).save(images / f"{row}.png")
        (images / "broken.png").write_bytes(b"")
        self._config = JobConfig(
            input=str(images), output="", max_tokens=12, rows_per_shard=3, dtype="float32", lease_seconds=3.0,
            standstill_seconds=90.0,
        )  # fmt: skip

    def play(self, number: int) -> tuple[Played, Counter[str]]:
        """One job; and what happened to it."""
        rng = random.Random(f"chaos {number}")
        undisturbed = self._cluster.undisturbed_rows(self._config, "chaos-undisturbed")
        config = replace(self._config, output=str(self._folder / f"out-{number}"))
        ends, struck = Counter[str](), Counter[str]()
        while not ends["done"]:
            attempt = self._cluster.start(config, {})
            self._strike_until_it_ends(attempt, rng, struck)
            ends[attempt.how_it_ended()] += 1
        return Played(judge(JobFolder(config.output), undisturbed), has_struck=bool(struck), ends=ends), struck

    def _strike_until_it_ends(self, attempt: Attempt, rng: random.Random, struck: Counter[str]) -> None:
        sleepers: list[_Sleeper] = []
        due = time.monotonic() + rng.uniform(*_PAUSE)
        while not attempt.has_ended(0.1) and not attempt.is_overdue:
            now = time.monotonic()
            for sleeper in [each for each in sleepers if each.until < now]:
                sleeper.wake()
                sleepers.remove(sleeper)
            if now > due and struck.total() < MOST_STRIKES:
                (kind,) = rng.choices([*_KINDS], weights=[*_KINDS.values()])
                struck[kind] += 1
                if wake := self._strike(kind, attempt, rng):
                    sleepers.append(_Sleeper(now + rng.uniform(*_NAP), wake))
                due = now + rng.uniform(*_PAUSE)
        for sleeper in sleepers:
            sleeper.wake()
        attempt.wait_ended_or_frozen()

    def _strike(self, kind: str, driver: Attempt, rng: random.Random) -> Callable[[], Any] | None:
        nodes = self._cluster.nodes
        raylets = nodes.raylets()
        match kind:
            case "driver killed":
                driver.signal(signal.SIGKILL)
            case "driver frozen":
                driver.signal(signal.SIGSTOP)
                return lambda: driver.signal(signal.SIGCONT)
            case "cluster killed":
                nodes.kill_all()
            case "worker killed" if raylets:
                workers = psutil.Process(rng.choice(raylets)).children(recursive=True)
                if workers:
                    send(rng.choice(workers).pid, signal.SIGKILL)
            case "node killed" if raylets:
                signal_tree(rng.choice(raylets), signal.SIGKILL)
            case "node frozen" if raylets:
                frozen = signal_tree(rng.choice(raylets), signal.SIGSTOP)
                return lambda: [send(process, signal.SIGCONT) for process in frozen]
        return None
