"""Rows that end their process are found and set aside, by notes that outlive it.

Before a worker asks the engine about rows of a shard it leaves a note of which rows; when they are answered it takes
the note away. A note that stands tells of a process that died with these rows, or works on them elsewhere. So:

- a shard that has ended its process `SHARD_DEATHS` times is taken up in windows of `WINDOW` rows, with no other shard
  in the same process;
- a window that has ended its process is taken up row by row;
- a row that has ended its process `ROW_DEATHS` times, alone, is poison: an error, and the shard is committed with it.

Processes are also killed from outside. That makes a shard slower, never an answer wrong: a row is only given up after
several deaths with that row alone in the process. That a shard is committed once and whole rests on none of the notes.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from pipelines.folder import JobFolder
from pipelines.layout import DATA
from skipvision.errors import EngineDeadError, InputError

ATTEMPTS = "attempts"
SHARD_DEATHS, ROW_DEATHS, WINDOW = 3, 3, 16
MOST_DEATHS_OF_A_ROW = SHARD_DEATHS + 1 + ROW_DEATHS
_ALONE, _SHARED = "alone", "shared"

Rows = tuple[int, int]
"""First, and one after the last, of a shard."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a shard is worked on after what has happened to it."""

    pieces: tuple[Rows, ...]
    """What the engine is asked about at a time, in order."""
    poison: frozenset[int]
    """Rows that it is not asked about any more."""
    alone: bool
    """Whether no other shard may be in the process meanwhile."""


class Attempts:
    """The notes of one shard."""

    def __init__(self, folder: JobFolder, shard: int, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._prefix = f"{ATTEMPTS}/shard-{shard:05d}"

    def course(self) -> Course:
        """What to do, after the deaths so far."""
        deaths = Counter(_of_note(name)[1:] for name in self._folder.names(self._prefix))
        if deaths[0, self._rows, _SHARED] < SHARD_DEATHS:
            return Course(((0, self._rows),), frozenset(), alone=False)
        pieces: list[Rows] = []
        for first in range(0, self._rows, WINDOW):
            stop = min(first + WINDOW, self._rows)
            pieces += [(row, row + 1) for row in range(first, stop)] if deaths[first, stop, _ALONE] else [(first, stop)]
        single = (first for first, stop in pieces if stop == first + 1)
        poison = frozenset(row for row in single if deaths[row, row + 1, _ALONE] >= ROW_DEATHS)
        return Course(tuple(piece for piece in pieces if piece[0] not in poison), poison, alone=True)

    @contextmanager
    def noted(self, rows: Rows, *, alone: bool) -> Iterator[None]:
        """A note stands as long as the `with` block runs, and for ever if the process ends in it."""
        name = f"{self._prefix}/{rows[0]}-{rows[1]}-{_ALONE if alone else _SHARED}-{uuid4().hex}"
        self._folder.create(name, b"")
        _STANDING[name] = self._folder
        yield
        self._folder.remove([name])  # not after an exception: the shard has failed with these rows
        _STANDING.pop(name, None)


_STANDING: dict[str, JobFolder] = {}
"""This process's notes."""


def withdraw_notes() -> None:
    """Remove this process's notes: it is about to end, and no row is to blame."""
    for name, folder in list(_STANDING.items()):
        folder.remove([name])


def poisoned() -> InputError:
    """The outcome of a row that is given up."""
    return InputError(f"asking about the row ended the engine's process {ROW_DEATHS} times", code="poison")


def refuse_broken_engine(folder: JobFolder, *, most_poison: int) -> None:
    """Stop where rows are not to blame: where every row that was tried alone died, or more than may.

    Raises:
        EngineDeadError: so it is.
    """
    deaths = Counter(_of_note(name) for name in folder.names(ATTEMPTS))
    poison = sorted(
        (shard, first) for (shard, first, stop, how), count in deaths.items()
        if stop == first + 1 and how == _ALONE and count >= ROW_DEATHS
    )  # fmt: skip
    advice = "the machine or the model is the likelier cause; the logs of the Ray workers say more"
    if len(poison) > most_poison:
        raise EngineDeadError(
            f"{len(poison)} rows have each ended the engine's process {ROW_DEATHS} times alone, more than "
            f"max_poison_rows allows: {advice}"
        )
    firsts = [row for shard, row in poison if shard == poison[0][0]]
    if firsts[:2] == [0, 1] and not folder.names(DATA):
        raise EngineDeadError(
            f"every row that was tried alone ended the engine's process, and none was answered: {advice}"
        )


def _of_note(name: str) -> tuple[str, int, int, str]:
    """(shard, first row, one after the last, how) of a note's name."""
    _, shard, note = name.split("/")
    first, stop, how, _ = note.split("-")
    return shard, int(first), int(stop), how


class Room:
    """A process that many shards share, or one has alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._taken = False

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[None]:
        """Be inside; `alone`: wait until all others have left, and let nobody in meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            if alone:
                self.take()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if alone:
                    self._taken = False
                self._changed.notify_all()

    def take(self, timeout: float | None = None) -> bool:
        """Let nobody in any more, and wait until all have left; whether they have, in so many seconds."""
        with self._changed:
            self._taken = True
            return self._changed.wait_for(lambda: not self._inside, timeout)
