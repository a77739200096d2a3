"""Measuring on the job itself what skipping saves and changes: a share of the rows is answered twice more.

A window is some rows of a shard, answered by an engine that does nothing else, once with the job's setting and once
with all visual tokens: full batches of one kind, on the job's own images and machine. In company a row has no seconds
of its own. The windows are spread over the job, the first of them at its beginning, and take turns in which setting is
first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from pipelines.attempts import Room
from pipelines.engine_thread import EngineThread
from pipelines.folder import JobFolder
from pipelines.plan import JobPlan
from pipelines.statistics import Comparison
from skipvision.engine import Answer, Request
from skipvision.engine.driver import EngineWork
from skipvision.errors import InputError
from skipvision.method.plan import SkipConfig

BEGUN = "windows"
"""Folder of notes: a shard's window that was begun. One that stands where no shard is committed ended its process, or
was ended with it, and is not begun again: measuring must not cost answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Which shards have a window, and of how many rows."""

    shards: frozenset[int] = frozenset()
    rows: int = 0


def choose_windows(plan: JobPlan, *, share: float, max_running: int) -> Windows:
    """As many whole windows as `share` of the job's rows is worth; none where it is worth less than one.

    A window fills the engine twice, where a shard has as many rows.
    """
    rows = min(2 * max_running, plan.rows_per_shard, plan.rows)
    windows = min(int(share * plan.rows / rows), plan.shards)
    return Windows(shards=frozenset(number * plan.shards // windows for number in range(windows)), rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What came of a window."""

    comparison: Comparison = field(default_factory=Comparison)
    comparing: EngineWork = field(default_factory=EngineWork)
    """What it took."""
    before: EngineWork = field(default_factory=EngineWork)
    """What the engine had done when it began, which nobody had counted."""


class Measuring:
    """Of one engine.

    Args:
        room: what those who use the engine are in while they do.
    """

    def __init__(self, engine: EngineThread, room: Room, windows: Windows) -> None:
        self._engine, self._room, self._windows = engine, room, windows

    def wants(self, shard: int) -> bool:
        """Whether a shard has a window."""
        return shard in self._windows.shards

    def measure(self, folder: JobFolder, shard: int, requests: Sequence[Request]) -> Measured:
        """Answer the window of a shard both ways, unless it was begun before.

        Args:
            requests: those of the shard that can be answered.
        """
        asked = requests[: self._windows.rows]
        if not asked or not folder.create(f"{BEGUN}/shard-{shard:05d}", b""):
            return Measured()
        with self._room.entered(alone=True):
            before = self._engine.take_work()
            comparison = self._compare(asked, all_tokens_first=bool(shard % 2))
            return Measured(comparison=comparison, comparing=self._engine.take_work(), before=before)

    def _compare(self, requests: Sequence[Request], *, all_tokens_first: bool) -> Comparison:
        settings: list[SkipConfig | None] = [None, SkipConfig()]
        for setting in settings:  # what is prepared for a setting when it is first seen is no part of it
            self._run(requests[:1], setting)
        order = reversed(settings) if all_tokens_first else iter(settings)
        ran = {setting: self._run(requests, setting) for setting in order}
        (job, seconds), (full, seconds_all) = ran[None], ran[SkipConfig()]
        pairs = [
            (one.text, other.text) for one, other in zip(job, full, strict=True)
            if isinstance(one, Answer) and isinstance(other, Answer)
        ]  # fmt: skip
        if len(pairs) < len(requests):  # an answer that only one setting has room for makes their seconds differ
            return Comparison()
        same = sum(one == other for one, other in pairs)
        return Comparison(rows=len(pairs), same=same, seconds=seconds, seconds_all_tokens=seconds_all)

    def _run(self, requests: Sequence[Request], setting: SkipConfig | None) -> tuple[list[Answer | InputError], float]:
        """What is answered with a setting, None being the job's, and in how many seconds."""
        self._engine.forget_images()
        began = time.perf_counter()
        answers = self._engine.answer([replace(each, skip=setting, request_id=uuid4().hex) for each in requests])
        return answers, time.perf_counter() - began
