"""Who works on a job: one run at a time, so that two do not do each other's work.

    lease.json   {"epoch": 3, "beat": 17, "holder": {"host": …, "process": …, …}}; `holder` is null once it is let go

The holder renews its lease while it lives. Another run waits until the lease is let go, until its holder's process is
known to be dead, or until it has not changed for a while by the waiting run's own clock: clocks of two machines are
never compared. A holder that was frozen for so long finds the next epoch there when it wakes, and stops.

A file that holds no lease, as after a slip of somebody's editor, is nobody's: the holder writes its own over it at the
next beat, and a run that waits takes it when nobody has done so for as long as a holder may be silent.

What is right in `data/` does not rest on any of this, but on commits that happen once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from pipelines.folder import JobFolder, Version
from pipelines.progress import say
from skipvision.errors import JobStoppedError, StorageError

LEASE = "lease.json"
_BEATS = 4
"""How often a lease is renewed before it could be taken for abandoned."""
_LOOKS = 20
"""How often a waiting run looks in that time."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A run, and its process as far as others can tell that from another."""

    host: str
    boot: str
    """Of the machine since it was last switched on."""
    process: int
    started: str
    """When the process did, in its machine's own count."""
    run: str
    """Of the process's runs, this one."""

    @classmethod
    def new(cls) -> Holder:
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or "", uuid4().hex)

    def is_dead(self) -> bool:
        """Whether it is known to be: of another machine nothing is known."""
        here = (self.host, self.boot) == (socket.gethostname(), _boot())
        return here and _started(self.process) != self.started

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@dataclass(frozen=True, slots=True)
class _State:
    """The content of `lease.json`."""

    epoch: int
    beat: int
    holder: Holder | None

    @property
    def is_free(self) -> bool:
        """Whether it was let go, or its holder is known to be dead."""
        return self.holder is None or self.holder.is_dead()

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> _State | None:
        """What a file says; None if it holds no lease."""
        try:
            return TypeAdapter(cls).validate_json(content)
        except ValidationError:
            return None


class Lease:
    """A lease that is held, and renewed in a thread of its own."""

    def __init__(self, folder: JobFolder, state: _State, version: Version, seconds: float) -> None:
        self._folder, self._state, self._version, self._seconds = folder, state, version, seconds
        self._ends = threading.Event()
        self._lost_to: _State | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """Counts the holders of this job's lease."""
        return self._state.epoch

    def check(self) -> None:
        """Raise if the lease is another's now.

        Raises:
            JobStoppedError: it is; this process gave no sign of life for too long.
        """
        if self._lost_to is not None:
            taker = self._lost_to.holder or "another run, which is over,"
            raise JobStoppedError(
                f"this run gave no sign of life for {self._seconds:g} seconds and {taker} has taken over"
            )

    def let_go(self) -> None:
        """Let others have it at once."""
        self._ends.set()
        self._thread.join()
        for _ in range(2):  # the first may find only that somebody has spoilt the file
            if self._lost_to is None and self._state.holder is not None:
                self._swap(replace(self._state, holder=None))

    def _renew(self) -> None:
        while self._lost_to is None and not self._ends.wait(self._seconds / _BEATS):
            self._swap(replace(self._state, beat=self._state.beat + 1))

    def _swap(self, state: _State) -> None:
        try:
            version = self._folder.swap(LEASE, state.to_json(), self._version)
            if version is None:
                self._look()
            else:
                self._state, self._version = state, version
        except StorageError:
            return  # a store that is away for a moment is no reason to stop; the next beat tries again

    def _look(self) -> None:
        """Somebody has written: another holder, this one, whose answer was lost, or who knows nothing of leases."""
        content, version = self._folder.read_version(LEASE)
        found = _State.from_json(content) if content is not None else replace(self._state, holder=None)
        if found is None:
            self._version = version  # no holder wrote that: the next beat mends it
        elif (found.epoch, found.holder) == (self._state.epoch, self._state.holder):
            self._state, self._version = found, version
        else:
            self._lost_to = found


@contextmanager
def leased(folder: JobFolder, *, seconds: float) -> Iterator[Lease]:
    """The lease of a job inside the `with` block; waits for it as long as another run works.

    Args:
        seconds: a holder that gives no sign of life for so long is taken for gone.

    Raises:
        StorageError: the lease can be neither read nor written.
    """
    state, version = _taken(folder, seconds)
    lease = Lease(folder, state, version, seconds)
    try:
        yield lease
    finally:
        lease.let_go()


def _taken(folder: JobFolder, seconds: float) -> tuple[_State, Version]:
    seen: bytes | None = None
    said = ""
    me, since = Holder.new(), time.monotonic()
    while True:
        content, version = folder.read_version(LEASE)
        found = _State.from_json(content) if content is not None else None
        if found is not None and found.holder == me:
            return found, version  # written, and the answer was lost
        if content != seen:
            seen, since = content, time.monotonic()
        if content is None or (found and found.is_free) or time.monotonic() - since > seconds:
            mine = _State(epoch=found.epoch + 1 if found else 1, beat=0, holder=me)
            if taken := folder.swap(LEASE, mine.to_json(), version):
                return mine, taken
            continue
        if (waiting := _why_wait(found, folder, seconds)) != said:
            say(said := waiting)
        time.sleep(seconds / _LOOKS)


def _why_wait(found: _State | None, folder: JobFolder, seconds: float) -> str:
    if found is None:
        return (
            f"{LEASE} of {folder.address} holds no lease; waiting {seconds:g} seconds for a run that works there to "
            "write it anew, and taking it if none does"
        )
    return f"{found.holder} works on {folder.address}; waiting until it ends or gives no sign of life"


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(process: int) -> str | None:
    """When a process of this machine started; None if there is none, or it is a corpse."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return rest[18] if state not in "ZX" else None
