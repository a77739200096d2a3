"""Processes that run a job until they end, die or freeze."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

from skipvision.config import JobConfig
from skipvision.failpoints import VARIABLE


class Attempts:
    """Starts attempts at jobs, each in a process of its own that is forked from one which has imported everything.

    Args:
        scratch: a folder for what they tell.
        patience: seconds after which an attempt is taken for hung.
        prepare: called in each process first; importable.
    """

    def __init__(self, scratch: Path, *, patience: float, prepare: Callable[[], None] | None = None) -> None:
        self._scratch, self._patience, self._prepare = scratch, patience, prepare
        self._context: Any = get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.faults.running", "pipelines.job", "pipelines.inference"])

    def start(self, config: JobConfig, wishes: Mapping[str, Any] | str) -> Attempt:
        """Begin an attempt.

        Args:
            wishes: for `skipvision.failpoints`; text as it reads it.
        """
        told = self._scratch / f"{uuid4().hex}.told"
        said = wishes if isinstance(wishes, str) else json.dumps(wishes)
        environment = {**os.environ, VARIABLE: said}  # the server that forks is older than some of it
        process = self._context.Process(target=run_job, args=(config, environment, told, self._prepare), daemon=True)
        process.start()
        return Attempt(process, told, self._patience)


class Attempt:
    """A process that runs a job."""

    def __init__(self, process: BaseProcess, told: Path, patience: float) -> None:
        self._process, self._told, self._patience = process, told, patience
        self._until = time.monotonic() + patience

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    @property
    def is_overdue(self) -> bool:
        """Whether it has taken longer than anybody waits."""
        return time.monotonic() > self._until

    def wait_ended_or_frozen(self) -> bool:
        """Whether it has ended; else it is frozen. One that does neither in time is ended by force."""
        while time.monotonic() < self._until:
            if self.has_ended(0.02):
                return True
            if is_stopped(self.pid):
                return False
        self.signal(signal.SIGKILL)
        self._process.join()
        self._told.write_text("hung")
        return True

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it has, or does in so many seconds."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def how_it_ended(self) -> str:
        """`done`, `killed`, `hung`, `exit` and a code, or the name of an error."""
        if self._told.exists():
            return self._told.read_text()
        code = self._process.exitcode
        return "killed" if code == -signal.SIGKILL else f"exit {code}"

    def said(self) -> str:
        """What it printed."""
        return self._told.with_suffix(".log").read_text()

    def wake(self) -> None:
        """Let it go on, if it is frozen, with as much time again."""
        self._until = time.monotonic() + self._patience
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if not self.has_ended():
            os.kill(self.pid, number)


@contextmanager
def sleepers() -> Iterator[list[Attempt]]:
    """A list for frozen processes, none of which outlives the `with` block."""
    frozen: list[Attempt] = []
    try:
        yield frozen
    finally:
        for sleeper in frozen:
            sleeper.signal(signal.SIGKILL)


def wake(frozen: Sequence[Attempt]) -> Iterator[str]:
    """Let frozen processes go on, all at once; how each ended."""
    for sleeper in frozen:
        sleeper.wake()
    for sleeper in frozen:
        yield f"{sleeper.how_it_ended()} when woken" if sleeper.wait_ended_or_frozen() else "frozen again"


def run_job(config: JobConfig, environment: Mapping[str, str], told: Path, prepare: Callable[[], None] | None) -> None:
    """The body of a process: run the job, and say how it ended."""
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    import pipelines.job

    with told.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        pipelines.job.run(config)
        told.write_text("done")
    except BaseException as error:  # whatever ends it is told, and judged by who asked for it
        traceback.print_exception(error)
        told.write_text(type(error).__name__)


def is_stopped(pid: int) -> bool:
    """Whether a process is frozen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False
