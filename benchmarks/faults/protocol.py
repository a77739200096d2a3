"""The job's protocol in real processes without Ray: each is broken at one place, and others finish what it began.

Real are the run of a job, its folder on a disk or in an S3 API, images and prompts, the worker with its engine, and the
signals. Left out are Ray, which has a matrix of its own, and the process of its own in which images are decoded.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from benchmarks.faults.matrix import POINTS, Point, has_struck, wish
from benchmarks.faults.running import Attempt, Attempts, sleepers, wake
from benchmarks.faults.verdict import Row, Verdict, judge, rows_of
from pipelines.folder import JobFolder
from skipvision.config import JobConfig

ROWS_PER_SHARD = 3
_PATIENCE = 120.0
_MOST_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Played:
    """A job that was broken and finished."""

    verdict: Verdict
    has_struck: bool
    """Whether the failure that was wished happened."""
    ends: Counter[str]
    """How its attempts ended: `killed`, `frozen`, `done`, or the name of an error."""


class ProtocolMatrix:
    """Plays cells of the matrix.

    Args:
        config: the job; its output is replaced in each cell.
        scratch: a folder for what processes tell.
    """

    def __init__(self, config: JobConfig, scratch: Path) -> None:
        self._config, self._scratch = config, scratch
        self._attempts = Attempts(scratch, patience=_PATIENCE, prepare=leave_out_ray)
        self._undisturbed: list[Row] = []

    def undisturbed(self) -> list[Row]:
        """The rows of the job when nobody breaks it."""
        if not self._undisturbed:
            output = str(self._scratch / "undisturbed")
            ended = self._attempt(output, {}, [])
            assert ended == "done", ended
            self._undisturbed = rows_of(JobFolder(output))
        return self._undisturbed

    def play(self, point: Point, kind: str, output: str, *, repeat: int) -> Played:
        """Break a job at `point`, at a pass of it that `repeat` draws, and let others finish it.

        Four in ten repeats break the attempt after it as well, somewhere, if it passes there.
        """
        rng = random.Random(f"{point.name} {kind} {repeat}")
        shards = -(-len(self.undisturbed()) // ROWS_PER_SHARD)
        after = rng.randrange(shards) if point.often else 0
        count_in = self._scratch / uuid4().hex
        wishes = [wish(point, kind, count_in, after=after)]
        if repeat % 4 > 1:
            another = rng.choice(POINTS)
            wishes.append(wish(another, rng.choice(another.kinds), self._scratch / uuid4().hex))
        ends: Counter[str] = Counter()
        with sleepers() as frozen:
            for number in range(_MOST_ATTEMPTS):
                ended = self._attempt(output, wishes[number] if number < len(wishes) else {}, frozen)
                ends[ended] += 1
                if ended == "done":
                    break
            ends += Counter(wake(frozen))
        verdict = judge(JobFolder(output), self._undisturbed)
        return Played(verdict, has_struck(count_in, after=after), ends)

    def _attempt(self, output: str, wishes: dict[str, Any], frozen: list[Attempt]) -> str:
        """Start the job, and wait until it has ended or is frozen, whereupon it joins the others."""
        attempt = self._attempts.start(replace(self._config, output=output), wishes)
        if attempt.wait_ended_or_frozen():
            return attempt.how_it_ended()
        frozen.append(attempt)
        return "frozen"


def leave_out_ray() -> None:
    """In the process of an attempt: shards go from hand to hand instead of through Ray."""
    import torch

    import pipelines.job
    import pipelines.prepare

    torch.set_num_threads(1)
    pipelines.job.cluster = lambda config: nullcontext()  # type: ignore[assignment,misc]
    pipelines.job.stream = _stream  # type: ignore[assignment]
    pipelines.prepare.sandbox = _no_sandbox  # type: ignore[assignment]


def _stream(
    shards: Sequence[int], preparation: Any, inference: Any, on: Any, *, standstill_seconds: float | None
) -> Iterator[Any]:
    from pipelines.inference import STATISTICS, InferenceWorker
    from pipelines.statistics import ShardStatistics

    worker = InferenceWorker(inference)
    for shard in shards:
        told: pa.Table = worker(preparation.prepare(shard))
        (row,) = told.to_pylist()
        yield ShardStatistics.from_json(row.pop(STATISTICS)), row


@cache
def _no_sandbox(model: str, limits: Any) -> Any:
    from skipvision import decoding
    from skipvision.families import load_preparer

    decoding._preparer = load_preparer(model)

    class InThisProcess:
        def prepare(self, images: Sequence[Any]) -> list[Any]:
            return [decoding.prepare(image) for image in images]

    return InThisProcess()
