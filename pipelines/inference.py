"""The engine worker: prepared shards in, committed shards out.

One Ray actor holds one engine. Several shards are in flight in it, each in a thread that waits for its answers and
then commits them, so that neither the end of a shard nor the storage ever lets the engine run empty. A row that is
wrong ends as a coded error; an engine that fails takes its process along, for Ray to replace it and try its shards
again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import ray

from monitoring.devices import device_of_this_process
from pipelines.account import Account, ShardWork
from pipelines.attempts import Attempts, Room, poisoned, refuse_broken_engine, withdraw_notes
from pipelines.commit import commit, committed_shard
from pipelines.drain import Drain, deadline_of_this_node
from pipelines.engine_thread import EngineThread
from pipelines.folder import JobFolder
from pipelines.held import HeldNote
from pipelines.observed import observe
from pipelines.plan import JobPlan
from pipelines.prepare import PREPARE_SECONDS, READ_SECONDS, SHARD
from pipelines.requests import requests_of
from pipelines.result_rows import Outcome, result_table
from pipelines.statistics import ShardStatistics
from pipelines.traces import RowTraces, ShardTimes
from pipelines.windows import Measured, Measuring, Windows
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.costs import Formulas
from skipvision.engine.driver import EngineWork
from skipvision.errors import InputError
from skipvision.failpoints import failpoint
from skipvision.method.plan import SkipConfig
from skipvision.tracing import Clock, tracer

STATISTICS = "statistics"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """What a worker needs to answer and commit any shard of one job."""

    output: str
    plan: JobPlan
    model: str
    skip: SkipConfig
    sampling: Sampling
    """Of the job; every row draws with a seed of its own."""
    device: str
    dtype: str
    max_running: int
    max_poison_rows: int = 16
    """More rows than this are not given up for ending their engine: then something else is wrong."""
    stall_seconds: float = 600.0
    """Longest step of an engine; longer, and its process is taken for hung and replaced."""
    windows: Windows = field(default_factory=Windows)
    """What is measured beside the answers."""
    traces: str | None = None
    """Where traces of rows are sent. None: none are made."""
    traces_share: float = 0.0

    def load_engine(self) -> Engine:
        return Engine.load(
            self.model, skip=self.skip, device=self.device, dtype=self.dtype, max_running=self.max_running
        )

    def row_traces(self) -> RowTraces | None:
        made = tracer(self.traces, self.traces_share, service="skipvision job")
        return None if made is None else RowTraces(made, self.output, self.plan)

    def node_deadline(self) -> float | None:
        """When the worker's node will be gone; see `Drain`."""
        return deadline_of_this_node() if ray.is_initialized() else None


class InferenceWorker:
    """One engine. Ray calls it from several threads, each with one shard."""

    def __init__(self, inference: Inference) -> None:
        began, since = time.monotonic(), time.time()
        engine = inference.load_engine()
        self._inference = inference
        device = device_of_this_process(on_gpu=engine.family.device.type == "cuda")
        self._account = Account(Formulas.of(engine.family), device)
        self._engine = EngineThread(engine, stall_seconds=inference.stall_seconds, held_since=began)
        self._traces = inference.row_traces()
        self._room = Room()
        self._held = HeldNote(JobFolder(inference.output), device, since)
        self._measuring = Measuring(self._engine, self._room, inference.windows)
        self._drain = Drain(inference.node_deadline, withdraw_notes)

    def __call__(self, prepared: pa.Table) -> pa.Table:
        """Answer and commit one shard; its statistics, and what was observed of its rows, as a table of one row."""
        with self._drain.working():
            return self._answer_and_commit(prepared)

    def _answer_and_commit(self, prepared: pa.Table) -> pa.Table:
        shard: int = prepared.column(SHARD)[0].as_py()
        folder = JobFolder(self._inference.output)
        statistics = committed_shard(folder, shard)  # by an attempt that died before it could tell, or another run
        outcomes: list[Outcome] = []
        if statistics is None:
            clock = Clock()
            began = clock.now()
            outcomes = self._answer(prepared)
            measured = self._measure(folder, shard, prepared, outcomes)
            answered = clock.now()
            statistics = self._commit(folder, shard, prepared, outcomes, measured)
            if self._traces is not None:
                times = ShardTimes(began=began, answered=answered, committed=clock.now())
                self._traces.make(shard, prepared, outcomes, times)
        observations = observe(outcome for outcome in outcomes if isinstance(outcome, Answer))
        columns = {name: pa.array([values], pa.list_(pa.float64())) for name, values in observations.items()}
        return pa.table({STATISTICS: [statistics.to_json()], **columns})

    def _answer(self, prepared: pa.Table) -> list[Outcome]:
        """One outcome for each row of a shard, in order."""
        folder = JobFolder(self._inference.output)
        attempts = Attempts(folder, prepared.column(SHARD)[0].as_py(), len(prepared))
        course = attempts.course()
        if course.alone:
            refuse_broken_engine(folder, most_poison=self._inference.max_poison_rows)
        requests = requests_of(prepared, self._inference.sampling)
        outcomes: dict[int, Outcome] = {
            number: request for number, request in enumerate(requests) if isinstance(request, InputError)
        }
        outcomes |= {number: poisoned() for number in course.poison}
        with self._room.entered(alone=course.alone):
            for first, stop in course.pieces:
                asked = {
                    number: request
                    for number, request in enumerate(requests[first:stop], start=first)
                    if isinstance(request, Request) and number not in outcomes
                }
                with attempts.noted((first, stop), alone=course.alone):
                    failpoint("answer", " ".join(str(request.prompt) for request in asked.values()))
                    outcomes |= zip(asked, self._engine.answer([*asked.values()]), strict=True)
        return [outcomes[number] for number in range(len(requests))]

    def _measure(self, folder: JobFolder, shard: int, prepared: pa.Table, outcomes: list[Outcome]) -> Measured:
        if not self._measuring.wants(shard):
            return Measured()
        requests = requests_of(prepared, self._inference.sampling)
        can_be_answered = [
            request for request, outcome in zip(requests, outcomes, strict=True)
            if isinstance(request, Request) and isinstance(outcome, Answer)
        ]  # fmt: skip
        return self._measuring.measure(folder, shard, can_be_answered)

    def _commit(
        self, folder: JobFolder, shard: int, prepared: pa.Table, outcomes: list[Outcome], measured: Measured
    ) -> ShardStatistics:
        expected = self._inference.plan.rows_in(shard)
        # Ray Data may split or join blocks; a shard that is not whole must never be committed.
        assert set(prepared.column(SHARD).to_pylist()) == {shard}, "rows of another shard in this one"
        assert len(prepared) == len(outcomes) == expected, f"{len(prepared)} rows of {expected} in shard {shard}"
        preparing = {
            "read": pc.sum(prepared.column(READ_SECONDS)).as_py(),
            "prepare": pc.sum(prepared.column(PREPARE_SECONDS)).as_py(),
        }
        taken = time.time()
        work = ShardWork(
            preparing=EngineWork(preparing),
            engine=measured.before + self._engine.take_work(),
            comparing=measured.comparing,
            comparison=measured.comparison,
        )
        results = result_table(prepared, outcomes, self._inference.plan.schema)
        committed = commit(folder, results, self._account.of_shard(shard, outcomes, work))
        self._held.settle(taken)
        return committed
