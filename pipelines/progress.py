"""What a person sees while a job runs: a bar on a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 10.0


class Show(Protocol):
    """Called with the rows that are committed, earlier attempts included."""

    def __call__(self, rows: int) -> None: ...


def say(text: str) -> None:
    """One line to whoever runs the job."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def shown(total_rows: int, done_rows: int) -> Iterator[Show]:
    """Show progress inside the `with` block.

    Args:
        done_rows: rows of earlier attempts; they do not count as speed.
    """
    if not sys.stderr.isatty():
        yield _Lines(total_rows, done_rows)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RowsPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("rows", total=total_rows, completed=done_rows)
        yield lambda rows: bar.update(task, completed=rows)


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("starting" if task.speed is None else f"{task.speed:,.1f} rows/s")


class _Lines:
    """A line when the last one is some seconds old, and at the end."""

    def __init__(self, total_rows: int, done_rows: int) -> None:
        self._total, self._before = total_rows, done_rows
        self._started = self._spoke = time.monotonic()

    def __call__(self, rows: int) -> None:
        now = time.monotonic()
        if now - self._spoke < LINE_SECONDS and rows < self._total:
            return
        self._spoke = now
        speed = (rows - self._before) / max(now - self._started, 1e-9)
        left = timedelta(seconds=round((self._total - rows) / speed)) if speed else "unknown"
        say(f"{rows:,} of {self._total:,} rows, {speed:,.1f} rows/s, {left} left")
