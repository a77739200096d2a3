"""What Ray Data's own checkpointing makes of the same troubles: rows lost and doubled, case by case.

A pipeline that maps and writes to Parquet with `CheckpointConfig`, as Ray's documentation shows it, at its defaults
unless the case says otherwise. The troubles are an exception, a second start, a second driver, a crash between two
calls to the store (its state is made by hand), and a row that ends its worker.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

ROWS, BLOCKS = 1000, 10
_PER_BLOCK = ROWS // BLOCKS
_LAST_BLOCK = ROWS - _PER_BLOCK
_POISON_SECONDS = 60.0
_PATIENCE = 120.0


class Case(NamedTuple):
    """A trouble."""

    name: str
    play: Callable[[Path], dict[str, Any]]
    """Given an empty folder: what became of the rows."""


def fail_and_go_on(folder: Path, **how: Any) -> dict[str, Any]:
    """An exception in the last block; then the same again without it."""
    _run(folder, fails=True, **how)
    _run(folder, **how)
    return _counted(folder)


def start_again_after_success(folder: Path) -> dict[str, Any]:
    """Done, and started once more, as a scheduler does that did not hear of it."""
    _run(folder)
    _run(folder)
    return _counted(folder)


def two_side_by_side(folder: Path) -> dict[str, Any]:
    """A second driver while the first one works, as after a partition."""
    context = multiprocessing.get_context("spawn")
    drivers = [context.Process(target=_run, args=(folder,), kwargs={"drivers": 2, "seconds": 1.0}) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    return {"drivers_failed": sum(driver.exitcode != 0 for driver in drivers), **_counted(folder)}


def crash_between_copy_and_delete(folder: Path) -> dict[str, Any]:
    """An object store has no rename: a checkpoint is copied to its name, then deleted. Killed between, both stand."""
    _run(folder, fails=True)
    checkpoints = folder / "checkpoints"
    done = sorted(file for file in checkpoints.iterdir() if ".pending" not in file.name)[0]
    shutil.copy(done, done.with_name(done.name.replace(".parquet", ".pending.parquet")))
    _run(folder)
    return _counted(folder)


def row_that_ends_its_worker(folder: Path) -> dict[str, Any]:
    """One row ends its process whenever it is looked at: how often, in a minute."""
    driver = multiprocessing.get_context("spawn").Process(target=_run, args=(folder,), kwargs={"dies": True})
    driver.start()
    driver.join(_POISON_SECONDS)
    ended = driver.exitcode is not None
    driver.kill()
    driver.join()
    deaths = len(list((folder / "deaths").iterdir()))
    return {"ended": ended, "deaths": deaths, "seconds": _POISON_SECONDS, **_counted(folder)}


CASES = (
    Case("it fails and is started again", fail_and_go_on),
    Case("it fails and is started again, with SaveMode.OVERWRITE", lambda to: fail_and_go_on(to, mode="OVERWRITE")),
    Case("it fails and is started again, its rows from memory", lambda to: fail_and_go_on(to, from_memory=True)),
    Case("it is started again after it was done", start_again_after_success),
    Case("two drivers side by side", two_side_by_side),
    Case("killed between a copy and a delete in the store", crash_between_copy_and_delete),
    Case("a row ends its worker", row_that_ends_its_worker),
)


def play(case: Case, folder: Path) -> dict[str, Any]:
    """Play one case in a process of its own; its rows lost and doubled, and the version of Ray."""
    import ray

    folder.mkdir()
    return {"ray": ray.__version__, "rows": ROWS, **case.play(folder)}


def _run(folder: Path, **how: Any) -> None:
    """One driver, in a process of its own: Ray's settings are the process's."""
    driver = multiprocessing.get_context("spawn").Process(target=_drive, args=(folder,), kwargs=how)
    if multiprocessing.parent_process() is not None:
        _drive(folder, **how)
        return
    driver.start()
    driver.join()


def _drive(
    folder: Path, *, fails: bool = False, dies: bool = False, seconds: float = 0.0, mode: str = "APPEND",
    from_memory: bool = False, drivers: int = 1,
) -> None:  # fmt: skip
    import ray
    from ray.data import DataContext, SaveMode
    from ray.data.checkpoint import CheckpointConfig

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    context = DataContext.get_current()
    context.print_on_execution_start = context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(folder / "checkpoints"))

    def work(block: dict[str, Any]) -> dict[str, Any]:
        time.sleep(seconds)
        if max(block["id"]) >= _LAST_BLOCK:
            if fails:
                _wait_until(lambda: len(_files(folder)) >= BLOCKS - 1)
                raise RuntimeError("a trouble")
            if dies:
                (folder / "deaths").mkdir(exist_ok=True)
                (folder / "deaths" / str(time.time_ns())).touch()
                os._exit(1)
        return block

    if from_memory:
        read = ray.data.from_items([{"id": row} for row in range(ROWS)], override_num_blocks=BLOCKS)
    else:
        read = ray.data.range(ROWS, override_num_blocks=BLOCKS)
    (folder / f"driver-{os.getpid()}").touch()
    _wait_until(lambda: len(list(folder.glob("driver-*"))) >= drivers)
    try:
        read.map_batches(work, batch_size=None).write_parquet(str(folder / "out"), mode=SaveMode[mode])
    except Exception as error:
        if not fails:
            sys.exit(f"{type(error).__name__}")


def _keys(folder: Path) -> Counter[int]:
    """Rows by how often each is in the output."""
    return Counter(row for file in _files(folder) for row in pq.read_table(file).column("id").to_pylist())


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("*.parquet"))


def _wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError("the others did not come so far")
        time.sleep(0.05)


def _counted(folder: Path) -> dict[str, Any]:
    found = _keys(folder)
    return {"lost": ROWS - len(found), "doubled": sum(found.values()) - len(found)}
