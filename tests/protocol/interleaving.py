"""Attempts at one job, interleaved at random by their store operations, each of which may go wrong in every way.

An attempt is anything that stops before each of its store operations and waits to be told what becomes of it: a
generator (the model) or a thread in the real code. A seed names a schedule.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Fate(Enum):
    """What becomes of one store operation, and of the attempt that asked for it."""

    DONE = "done"
    FAILED = "not done, and an error says so"
    UNHEARD = "done, and an error says that it was not"
    KILLED_BEFORE = "not done, and the attempt is no more"
    KILLED_AFTER = "done, and the attempt is no more"


FAULTS = (Fate.FAILED, Fate.UNHEARD, Fate.KILLED_BEFORE, Fate.KILLED_AFTER)
_FROZEN_TURNS = 40


class StoreError(Exception):
    """What a store says when it cannot be reached; whether it did what it was asked is not known."""


class Attempt(Protocol):
    """Somebody who works on the job."""

    def go_on(self, fate: Fate) -> bool:
        """Do the operation that it waits to do; whether it waits for another one now."""
        ...


A = TypeVar("A", bound=Attempt)


class Interleaving(Generic[A]):
    """One schedule: up to `most` attempts side by side or one after another, some of them frozen for a while.

    Faults come while there are attempts left to start; the last one is let alone, so that the job can be finished. An
    attempt that was frozen may wake when everything is over: a zombie.
    """

    def __init__(self, seed: int, start: Callable[[], A], *, most: int = 5) -> None:
        self._rng = random.Random(seed)
        self._start, self._left = start, most
        self._awake: list[A] = []
        self._frozen: list[tuple[int, A]] = []
        self._turn = 0
        self.faults = 0
        self._fault_share = self._rng.choice((0.0, 0.02, 0.05, 0.15))
        self._freeze_share = self._rng.choice((0.0, 0.02, 0.08))

    def run(self) -> None:
        """Go on until an attempt that nobody disturbed has ended, and every zombie too."""
        while self._left or self._awake:
            self._turn += 1
            self._wake(turn=self._turn)
            if self._left and (not self._awake or self._rng.random() < 0.03):
                self._left -= 1
                self._awake.append(self._start())
            self._move(self._rng.choice(self._awake))
        self._wake(turn=None)
        while self._awake:
            self._move(self._rng.choice(self._awake))

    def _move(self, attempt: A) -> None:
        if self._left and self._rng.random() < self._freeze_share:
            self._awake.remove(attempt)
            self._frozen.append((self._turn + self._rng.randrange(4 * _FROZEN_TURNS), attempt))
            return
        fate = Fate.DONE
        if self._left and self._rng.random() < self._fault_share:
            fate = self._rng.choice(FAULTS)
            self.faults += 1
        if not attempt.go_on(fate):
            self._awake.remove(attempt)

    def _wake(self, turn: int | None) -> None:
        """Let those go on whose time has come; None: all."""
        due = [(until, attempt) for until, attempt in self._frozen if turn is None or until <= turn]
        self._frozen = [each for each in self._frozen if each not in due]
        self._awake += [attempt for _, attempt in due]
