"""What each tenant has used of today's budget, and the file that remembers it while no process runs.

On disk are the day of UTC, tenants' names and numbers of tokens. One process writes a file.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from skipvision.errors import ConfigError, StorageError

SAVE_EVERY_NS = 1_000_000_000

Page = tuple[date, dict[str, int]]
"""A day of UTC and the tokens of each tenant on it. Replaced as one, since another thread may be writing it down."""


class Ledger:
    """Tokens per tenant since midnight UTC.

    `add` and `tokens_of` are for one thread, such as that of the event loop. `save` may wait for a disk and may be
    called from another: `await asyncio.to_thread(ledger.save)`, about once a second. A process that is killed forgets
    what was added since.

    Args:
        path: where it is kept, in a folder that exists. None: nowhere; with the process, it is forgotten.
        clock: monotonic, in nanoseconds; paces saving.
        wall: seconds since the epoch; says which day it is.

    Raises:
        ConfigError: the file is damaged or cannot be written. A missing one is an empty one.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._clock, self._wall = path, clock, wall
        self._page: Page = (_read(path) if path is not None else None) or (self._today(), {})
        self._is_new, self._saved_at, self._saving = True, clock(), threading.Lock()
        try:
            self._write()  # what cannot be written later had better be known now
        except OSError as error:
            raise ConfigError(f"ledger {path} cannot be written: {error.strerror}; choose another place") from error

    def tokens_of(self, tenant: str) -> int:
        """Tokens counted today."""
        return self._todays_tokens().get(tenant, 0)

    def seconds_to_midnight(self) -> float:
        """Until every budget begins anew; more than 0."""
        return 86400 - self._wall() % 86400

    def add(self, tenant: str, tokens: int) -> None:
        """Count tokens on the day that it is now."""
        todays = self._todays_tokens()
        if tokens:
            todays[tenant] = todays.get(tenant, 0) + tokens
            self._is_new = True

    def save(self) -> None:
        """Write the file if there is anything new and the last time was a second ago.

        Raises:
            StorageError: it cannot be written now. What is on disk is whole, and the next call tries again.
        """
        if self._clock() - self._saved_at >= SAVE_EVERY_NS:
            self.close()

    def close(self) -> None:
        """Write the file if there is anything new, at once. The ledger may be used on.

        Raises:
            StorageError: it cannot be written now.
        """
        try:
            self._write()
        except OSError as error:
            raise StorageError(f"ledger {self._path} cannot be written: {error.strerror}") from error

    def _write(self) -> None:
        with self._saving:
            if not self._is_new or self._path is None:
                return
            # Before the page is copied: what is added while the disk is busy is new again.
            self._is_new, self._saved_at = False, self._clock()
            day, tokens = self._page
            try:
                _replace(self._path, json.dumps({"day": day.isoformat(), "tokens": dict(tokens)}))
            except BaseException:
                self._is_new = True
                raise

    def _todays_tokens(self) -> dict[str, int]:
        (day, tokens), today = self._page, self._today()
        if today > day:
            tokens, self._is_new = {}, True
        # A clock that is set back keeps what was counted: it is neither forgotten, nor kept until that later day.
        self._page = today, tokens
        return tokens

    def _today(self) -> date:
        return datetime.fromtimestamp(self._wall(), UTC).date()


def _read(path: Path) -> Page | None:
    try:
        page = json.loads(path.read_bytes())
        return date.fromisoformat(page["day"]), _checked(page["tokens"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"ledger {path} cannot be read: {error.strerror}; make it readable") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        problem = f"ledger {path} is damaged: restore it, or remove it to begin all of today's budgets anew"
        raise ConfigError(problem) from error


def _checked(tokens: Any) -> dict[str, int]:
    if not isinstance(tokens, dict) or not all(type(count) is int and count >= 0 for count in tokens.values()):
        raise ValueError("tokens must be a mapping of names to numbers")
    return tokens


def _replace(path: Path, text: str) -> None:
    """Write a file so that, at any moment and after a power cut, it is as it was or complete."""
    # Always the same name: a process that is killed here leaves one file behind, which the next one overwrites.
    unfinished = path.with_name(f".{path.name}.unfinished")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name, too, is only then on disk
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
