"""The job's real code as attempts of an `Interleaving`: a thread each, stopped before each of its store operations.

Real are the run of a job, its folder, freezing, commits, manifest and success; Ray and the engine are replaced by a
loop that commits a made-up answer for every row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from queue import Queue
from typing import Any

import pyarrow as pa
import pytest
from obstore.exceptions import GenericError

import pipelines.job
from pipelines.commit import commit, committed_shard
from pipelines.folder import JobFolder
from pipelines.frozen import frozen_name, read_table
from pipelines.inference import Inference
from pipelines.observed import Observations, observe
from pipelines.prepare import Preparation
from pipelines.result_rows import ROW_KEY, result_table
from pipelines.statistics import Cost, RowSeconds, ShardStatistics, TokenCounts
from skipvision.config import JobConfig
from skipvision.engine import EngineCounts
from skipvision.errors import InputError
from tests.protocol.interleaving import Fate

_HERE = threading.local()
"""`attempt`: the one whose thread this is; none in the threads of readers, who are let through."""
_GATED = ("create", "replace", "read", "names", "remove")
CHANGED: list[str] = []
"""Files that were created and later were another, though nothing that is created ever changes."""
_CREATED: dict[tuple[str, str], bytes | None] = {}


class Killed(BaseException):
    """The end of an attempt that was killed. Whatever its thread does on its way out, the store hears nothing of it."""


class RealAttempt:
    """`pipelines.job.run`, from now to its end."""

    def __init__(self, config: JobConfig, ended: list[BaseException | None]) -> None:
        self._config, self._ended = config, ended
        self._fates: Queue[Fate] = Queue()
        self._waiting: Queue[bool] = Queue()
        self._killed = False
        threading.Thread(target=self._work, daemon=True).start()
        self._waiting.get()

    def go_on(self, fate: Fate) -> bool:
        self._fates.put(fate)
        return self._waiting.get()

    def pass_gate(self, operation: Callable[[], Any]) -> Any:
        """In the attempt's own thread: wait for a fate, and meet it."""
        if self._killed:
            raise Killed
        self._waiting.put(True)
        fate = self._fates.get()
        answer = None if fate in (Fate.FAILED, Fate.KILLED_BEFORE) else operation()
        if fate in (Fate.KILLED_BEFORE, Fate.KILLED_AFTER):
            self._killed = True
            raise Killed
        if fate is not Fate.DONE:
            raise GenericError("the store did not answer")
        return answer

    def _work(self) -> None:
        _HERE.attempt = self
        try:
            pipelines.job.run(self._config)
            self._ended.append(None)
        except BaseException as error:  # told apart by the test
            self._ended.append(error)
        finally:
            self._waiting.put(False)


def replace_ray_and_engine(patch: pytest.MonkeyPatch, model: Any) -> None:
    """Make `pipelines.job.run` work with gated folders, without Ray and without a model."""
    for name in _GATED:
        patch.setattr(JobFolder, name, _gated(getattr(JobFolder, name)))
    patch.setattr(pipelines.job, "cluster", lambda config: nullcontext())
    patch.setattr(pipelines.job, "leased", lambda folder, seconds: nullcontext(_NoLease()))
    patch.setattr(pipelines.job, "stream", _stream)
    patch.setattr(pipelines.job, "choose_model", lambda config: model)
    patch.setattr(pipelines.job, "write_report", lambda folder, report: folder.replace("report.json", b"{}"))
    patch.setattr(pipelines.job, "say", lambda line: None)


def _gated(method: Callable[..., Any]) -> Callable[..., Any]:
    def through_the_gate(self: JobFolder, *args: Any, **kwargs: Any) -> Any:
        attempt: RealAttempt | None = getattr(_HERE, "attempt", None)
        inside = getattr(_HERE, "inside", False)
        if attempt is None or inside:
            return method(self, *args, **kwargs)

        def operation() -> Any:
            _HERE.inside = True  # what a gated method calls belongs to it
            try:
                answer = method(self, *args, **kwargs)
                if method.__name__ == "create":
                    _note_created(self, args[0])
                return answer
            finally:
                _HERE.inside = False

        return attempt.pass_gate(operation)

    return through_the_gate


def _note_created(folder: JobFolder, name: str) -> None:
    content = folder.read(name)
    if _CREATED.setdefault((folder.address, name), content) != content:
        CHANGED.append(f"{name} of {folder.address}")


class _NoLease:
    """Attempts work side by side here: what is right must not rest on the lease."""

    def check(self) -> None:
        """Nobody has one."""


def _stream(
    shards: Sequence[int], preparation: Preparation, inference: Inference, on: Any, *, standstill_seconds: float | None
) -> Iterator[tuple[ShardStatistics, Observations]]:
    for shard in shards:
        folder = JobFolder(inference.output)
        yield committed_shard(folder, shard) or _answered(folder, shard, preparation, inference), observe(())


def _answered(folder: JobFolder, shard: int, preparation: Preparation, inference: Inference) -> ShardStatistics:
    rows: pa.Table = read_table(folder, frozen_name(preparation.input_id, shard))
    refused = [InputError(f"refused {key}", code="image_missing") for key in rows.column(ROW_KEY).to_pylist()]
    return commit(
        folder, result_table(rows, refused, inference.plan.schema), replace(_NOTHING, shard=shard, rows=len(rows),
                                                                            errors_by_code={"image_missing": len(rows)})
    )  # fmt: skip


_NOTHING = ShardStatistics(
    shard=0, rows=0, ok=0, errors_by_code={}, tokens=TokenCounts(), actual=Cost(), all_tokens=Cost(), stage_seconds={},
    finish_reasons={}, row_seconds=RowSeconds(), engine=EngineCounts(),
)  # fmt: skip
