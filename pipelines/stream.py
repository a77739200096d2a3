"""The stream of a job through Ray Data: shard numbers -> prepared shards -> committed shards.

A shard is one block from end to end, so that a task that is run again gives the same number of blocks. Ray Data
brings streaming, back-pressure and actor pools; what is done already is known from the job's folder alone.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.exceptions import SystemException
from ray.exceptions import (
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)
from ray.util.annotations import RayDeprecationWarning

from pipelines.attempts import MOST_DEATHS_OF_A_ROW
from pipelines.cluster import Cluster
from pipelines.inference import STATISTICS, Inference, InferenceWorker
from pipelines.observed import Observations
from pipelines.prepare import SHARD, Preparation, prepare_shard
from pipelines.statistics import ShardStatistics
from skipvision.errors import JobStoppedError, SkipVisionError

T = TypeVar("T")

SHARDS_IN_FLIGHT = 3
"""Per engine: one that ends, one that fills its places, one on the way."""

SHARDS_AT_ONCE = 4096
"""Given to Ray Data: it takes time and memory for each before the first begins. After so many, engines start anew."""

PREPARE_RETRIES = 3
"""For a task whose process died. Ray Data's own default is for ever."""


def stream(
    shards: Sequence[int],
    preparation: Preparation,
    inference: Inference,
    on: Cluster,
    *,
    standstill_seconds: float | None = None,
) -> Iterator[tuple[ShardStatistics, Observations]]:
    """Work through `shards`, in any order.

    Args:
        standstill_seconds: see `JobConfig`.

    Yields:
        For each shard, once it is committed: its numbers, and what was observed of its answered rows.

    Raises:
        JobStoppedError: a shard failed as often as may be, the cluster did, or nothing has come of it for too long.
            What is committed stays.
    """
    patience = standstill_seconds or max(1800.0, 120.0 * inference.plan.rows_per_shard)
    with _ray_data_quiet():
        for first in range(0, len(shards), SHARDS_AT_ONCE):
            committed = _plan_stream(shards[first : first + SHARDS_AT_ONCE], preparation, inference, on)
            try:
                blocks = committed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
                for block in not_standing_still(blocks, seconds=patience):
                    assert isinstance(block, pa.Table)
                    for row in block.to_pylist():
                        yield ShardStatistics.from_json(row.pop(STATISTICS)), row
            except RayError as error:
                raise JobStoppedError(_cause(error)) from error


def not_standing_still(blocks: Iterable[T], *, seconds: float) -> Iterator[T]:
    """The same, one after the other, as long as the next one comes in time.

    They are taken in a thread of their own, since one that waits in vain for something from Ray cannot be woken. Ray
    Data's own guard looks at its queues between one wait and the next, and sees nothing while a wait does not end.

    Raises:
        JobStoppedError: nothing came for so many seconds.
    """
    came: SimpleQueue[T | _Ended] = SimpleQueue()

    def take_all() -> None:
        try:
            for block in blocks:
                came.put(block)
            came.put(_Ended(None))
        except BaseException as error:  # it is raised where it is waited for
            came.put(_Ended(error))

    threading.Thread(target=take_all, name="shards", daemon=True).start()
    while True:
        try:
            block = came.get(timeout=seconds)
        except Empty:
            raise JobStoppedError(
                f"no shard has come to its end for {seconds:g} seconds: Ray waits for what does not come, as it may "
                "after the loss of a node, or shards take longer than that, and standstill_seconds should be more"
            ) from None
        if not isinstance(block, _Ended):
            yield block
        elif block.error is None:
            return
        else:
            raise block.error


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


def _plan_stream(
    shards: Sequence[int], preparation: Preparation, inference: Inference, on: Cluster
) -> ray.data.Dataset:
    # What rows that are given up may cost, and as much as one row may for everything else.
    deaths = MOST_DEATHS_OF_A_ROW * (inference.max_poison_rows + 1)
    with DataContext.current(_context()), warnings.catch_warnings():
        # Until 2.64 there is no other way to bound the retries.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        numbers = ray.data.from_blocks([pa.table({SHARD: pa.array([shard], pa.int64())}) for shard in shards])
        prepared = numbers.map_batches(
            prepare_shard,
            fn_kwargs={"preparation": preparation},
            num_cpus=1,
            max_retries=PREPARE_RETRIES,
            compute=TaskPoolStrategy(size=on.prepare_tasks),
            **_WHOLE_BLOCKS,
        )
        # What `map_batches` calls after its checks, one of which refuses whole blocks to whoever asks for a GPU.
        committed: ray.data.Dataset = prepared.map_batches_internal(
            InferenceWorker,
            fn_constructor_kwargs={"inference": inference},
            compute=ActorPoolStrategy(
                size=on.workers,
                max_concurrent_calls_per_actor=SHARDS_IN_FLIGHT,
                max_tasks_in_flight_per_actor=2 * SHARDS_IN_FLIGHT,
                enable_true_multi_threading=True,
            ),
            max_restarts=deaths,
            max_task_retries=deaths,
            **on.engine_resources,
            **_WHOLE_BLOCKS,
        )
        return committed


_WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def _context() -> DataContext:
    """Settings of this dataset alone; the process's own are left as they are."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = None  # what a task returns is one block, however large
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.execution_options.preserve_order = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = -1  # see `not_standing_still`
    return context


@contextmanager
def _ray_data_quiet() -> Iterator[None]:
    """Ray Data's words go to its own log files; the job has a progress bar and errors of its own."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


_GIVEN_UP: dict[type[RayError], str] = {
    OutOfMemoryError: "a node had no memory left again and again, and Ray ended the process that worked on a shard; "
    "give the nodes more memory, or let fewer processes share it",
    OutOfDiskError: "a node had no room left for what goes from process to process, neither in its shared memory nor "
    "on its disk; make room there",
    ObjectStoreFullError: "a node had no room left in its shared memory for what goes from process to process; make "
    "room there",
    WorkerCrashedError: "the process that prepares images ended again and again; the log of its Ray worker says why",
    RayActorError: "the engine's process ended again and again; the log of its Ray worker says why",
}
"""What Ray gave up, by its error, in the words of this program."""


def _cause(error: BaseException) -> str:
    """What was raised first, in the task itself, without what Ray says about it."""
    for kind, said in _GIVEN_UP.items():
        if isinstance(error, kind):
            return said
    inner = getattr(error, "cause", None) or error.__cause__
    # Ray Data marks what it thinks is Ray's own fault by a cause that says nothing.
    if isinstance(inner, BaseException) and inner is not error and not isinstance(inner, SystemException):
        return _cause(inner)
    lines = str(error).strip().splitlines() or [""]
    # Ours say all in one line; what follows it is Ray Data's advice to whoever writes such functions.
    return lines[0] if isinstance(error, SkipVisionError) else f"{type(error).__name__}: {lines[0]}"
