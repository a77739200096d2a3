"""The job's protocol in real processes without Ray: each is broken at one place, and others finish what it began.

Real are the run of a job, its folder on a disk or in an S3 API, images and prompts, the worker with its engine, and the
signals. Left out are Ray, which has a matrix of its own, and the process of its own in which images are decoded.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from benchmarks.faults.matrix import POINTS, Point, has_struck, wish
from benchmarks.faults.verdict import Row, Verdict, judge, rows_of
from pipelines.failpoints import VARIABLE
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
        self._context: Any = get_context("forkserver")
        # What takes seconds to import is imported once; an attempt starts at once.
        self._context.set_forkserver_preload(["benchmarks.faults.protocol", "pipelines.job", "pipelines.inference"])
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

        Half of the repeats break the attempt after it as well, somewhere.
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
        with _sleepers() as sleepers:
            for number in range(_MOST_ATTEMPTS):
                ended = self._attempt(output, wishes[number] if number < len(wishes) else {}, sleepers)
                ends[ended] += 1
                if ended == "done":
                    break
            ends += Counter(_wake(sleepers))
        verdict = judge(JobFolder(output), self._undisturbed)
        return Played(verdict, has_struck(count_in, after=after), ends)

    def _attempt(self, output: str, wishes: dict[str, Any], sleepers: list[_Running]) -> str:
        """Start the job, and wait until it has ended or is frozen, whereupon it joins the sleepers."""
        told = self._scratch / f"{uuid4().hex}.told"
        environment = {**os.environ, VARIABLE: json.dumps(wishes)}  # the server that forks is older than some of it
        arguments = (replace(self._config, output=output), environment, told)
        running = _Running(self._context.Process(target=attempt, args=arguments, daemon=True), told)
        running.process.start()
        if running.wait_ended_or_frozen():
            return running.how_it_ended()
        sleepers.append(running)
        return "frozen"


@dataclass(slots=True)
class _Running:
    """One attempt's process."""

    process: BaseProcess
    told: Path

    def wait_ended_or_frozen(self) -> bool:
        """Whether it has ended; else it is frozen."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            self.process.join(0.02)
            if self.process.exitcode is not None:
                return True
            if _is_stopped(self.process.pid):
                return False
        self.signal(signal.SIGKILL)
        raise TimeoutError(f"an attempt did not end in {_PATIENCE:g} seconds")

    def how_it_ended(self) -> str:
        if self.told.exists():
            return self.told.read_text()
        code = self.process.exitcode
        return "killed" if code == -signal.SIGKILL else f"exit {code}"

    def signal(self, number: int) -> None:
        if self.process.exitcode is None and self.process.pid is not None:
            os.kill(self.process.pid, number)


@contextmanager
def _sleepers() -> Iterator[list[_Running]]:
    """A list for frozen processes, none of which outlives the `with` block."""
    sleepers: list[_Running] = []
    try:
        yield sleepers
    finally:
        for sleeper in sleepers:
            sleeper.signal(signal.SIGKILL)


def _wake(sleepers: Sequence[_Running]) -> Iterator[str]:
    """Let frozen processes go on, all at once; how each ended."""
    for sleeper in sleepers:
        sleeper.signal(signal.SIGCONT)
    for sleeper in sleepers:
        yield f"{sleeper.how_it_ended()} when woken" if sleeper.wait_ended_or_frozen() else "frozen again"


def attempt(config: JobConfig, environment: Mapping[str, str], told: Path) -> None:
    """The body of a process: run the job, and say how it ended."""
    os.environ.update(environment)
    _leave_out_ray()
    import pipelines.job

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        pipelines.job.run(config)
        told.write_text("done")
    except BaseException as error:  # whatever ends it is told, and judged by who asked for it
        told.write_text(type(error).__name__)


def _leave_out_ray() -> None:
    import torch

    import pipelines.job
    import pipelines.prepare

    torch.set_num_threads(1)
    pipelines.job.cluster = lambda config: nullcontext()  # type: ignore[assignment,misc]
    pipelines.job.stream = _stream  # type: ignore[assignment]
    pipelines.prepare.sandbox = _no_sandbox  # type: ignore[assignment]


def _stream(shards: Sequence[int], preparation: Any, inference: Any, on: Any) -> Iterator[Any]:
    from pipelines.inference import STATISTICS, InferenceWorker
    from pipelines.statistics import ShardStatistics

    worker = InferenceWorker(inference)
    for shard in shards:
        told: pa.Table = worker(preparation.prepare(shard))
        (row,) = told.to_pylist()
        yield ShardStatistics.from_json(row.pop(STATISTICS)), row


@cache
def _no_sandbox(model: str, limits: Any) -> Any:
    from pipelines import decoding
    from skipvision.families import load_preparer

    decoding._preparer = load_preparer(model)

    class InThisProcess:
        def prepare(self, images: Sequence[Any]) -> list[Any]:
            return [decoding.prepare(image) for image in images]

    return InThisProcess()


def _is_stopped(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False
