"""The asking side: a worker process that is started, asked, held still between questions, and closed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

ROOT = Path(__file__).parents[2]
_SECONDS_TO_LEAVE = 20


class WorkerFailedError(RuntimeError):
    """A worker could not do what it was asked, or is gone."""


class WorkerProcess:
    """One engine in a process group of its own, which is stopped whenever it has nothing to do.

    An engine's threads may wait by spinning; stopped, they take no core from the one that is being measured. The group
    stays in this process's session, so that the kernel ends what is stopped there when this process is killed.

    Args:
        python: the interpreter, whose environment is the engine's.
        module: what runs `serve`.
        environment: variables on top of this process's.

    Raises:
        WorkerFailedError: there is no such interpreter.
    """

    def __init__(self, python: str | Path, module: str, *, environment: Mapping[str, str] | None = None) -> None:
        self._log = TemporaryFile("w+")  # noqa: SIM115 -- `close` closes it
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", module], cwd=ROOT, env={**os.environ, **(environment or {})}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, process_group=0,
            )  # fmt: skip
        except OSError as error:
            raise WorkerFailedError(f"{python} cannot be run: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the worker, which is also its group's."""
        return self._process.pid

    def ask(self, do: str, *, within_seconds: float = 1200, **arguments: Any) -> Any:
        """Call a method of the worker; what it returned.

        Raises:
            WorkerFailedError: it failed, ended, or took too long.
        """
        self.send(do, **arguments)
        return self.receive(within_seconds=within_seconds)

    def send(self, do: str, **arguments: Any) -> None:
        """Begin to call a method; `receive` follows."""
        assert self._process.stdin is not None, "opened as a pipe"
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # it has ended: `receive` says so
            print(json.dumps({"do": do, "with": arguments}), file=self._process.stdin, flush=True)

    def receive(self, *, within_seconds: float = 1200) -> Any:
        """What the method returned.

        Raises:
            WorkerFailedError: as `ask`.
        """
        reply = json.loads(self._reply(within_seconds))
        self._hold_still()
        if "failed" in reply:
            raise WorkerFailedError(reply["failed"])
        return reply["returned"]

    def close(self) -> None:
        """Let the worker end by itself, and end it with all its children if it does not."""
        self._signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self._process.communicate(timeout=_SECONDS_TO_LEAVE)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _reply(self, within_seconds: float) -> str:
        assert self._process.stdout is not None, "opened as a pipe"
        ready, _, _ = select.select([self._process.stdout], [], [], within_seconds)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return line
        if ready:
            raise WorkerFailedError(self._last_words())
        self._signal(signal.SIGKILL)  # it would not notice that it is to leave, either
        raise WorkerFailedError(f"no reply within {within_seconds:.0f} seconds")

    def _last_words(self) -> str:
        """Why the process has ended, as far as it said."""
        code = self._process.wait()
        self._log.seek(0)
        said = [line.strip() for line in self._log if line.strip()]
        return f"the process ended with {code}: {said[-1] if said else 'it said nothing'}"

    def _hold_still(self) -> None:
        """Stop the group, and wait until it is: the kernel ends an orphaned group only if it was stopped before."""
        self._signal(signal.SIGSTOP)
        with suppress(ChildProcessError):  # it has ended and was waited for
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(self.pid, number)
