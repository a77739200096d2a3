"""One registry for many processes: what they report is counted once, and outlives them and the hub.

A report is known by its source and its number. One that was counted is not counted again, so that a sender who is in
doubt sends it again. Totals and the numbers of counted reports are saved together, in one file that is replaced whole,
before a report is acknowledged: a hub that is killed and started again has counted exactly what its senders need not
send again.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skipvision.errors import ConfigError
from skipvision.metrics.catalogue import CATALOGUE, HUB_LAST_REPORT, HUB_REPORTS, HUB_SOURCES, JOB_LAST_COMMIT
from skipvision.metrics.registry import Delta, Registry, Series

SILENT_SECONDS = 30.0
"""A process that has said nothing for so long is taken for gone, and with it what its gauges said."""

MOST_JOBS = 100
"""Whose gauges are kept: those that committed rows last."""

REMEMBERED_SECONDS = 30 * 86_400.0
"""So long after its last report the numbers of a source's reports are known."""

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one process, or one job, has to tell."""

    source: str
    """Who tells it, unique for ever: a process, or a job whose reports are those of its shards."""
    number: int
    """Of the report among the source's, in any order."""
    delta: Delta
    process: str = ""
    """Who speaks, where that is another than the source: whose gauges these are."""


class Counted:
    """Numbers of reports, as ranges: those of a source that counts up are one."""

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._ranges = [(first, last) for first, last in ranges]

    def __contains__(self, number: int) -> bool:
        place = self._place(number)
        return place > 0 and number <= self._ranges[place - 1][1]

    def add(self, number: int) -> None:
        """Take in a number that is not there yet."""
        place = self._place(number)
        first = last = number
        if place < len(self._ranges) and self._ranges[place][0] == number + 1:
            last = self._ranges.pop(place)[1]
        if place and self._ranges[place - 1][1] == number - 1:
            place -= 1
            first = self._ranges.pop(place)[0]
        self._ranges.insert(place, (first, last))

    def _place(self, number: int) -> int:
        """Of the first range that begins after a number."""
        return bisect_right(self._ranges, number, key=lambda numbers: numbers[0])

    def ranges(self) -> list[list[int]]:
        """(first, last) of each, ascending."""
        return [[first, last] for first, last in self._ranges]


@dataclass(slots=True)
class _Source:
    """What is known of one source."""

    counted: Counted = field(default_factory=Counted)
    heard: float = 0.0
    """When, in seconds since 1970."""


class Hub:
    """Adds up reports and publishes the sums.

    Args:
        totals: the file that totals are kept in. None: they begin at 0, and end with the process.

    Raises:
        ConfigError: the file is there and is none of a hub's, or cannot be written.
    """

    def __init__(self, totals: Path | None = None) -> None:
        self.registry = Registry(begins_at_zero=True)
        self._totals = totals
        self._sources: dict[str, _Source] = {}
        self._heard: dict[str, float] = {}
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._closed = threading.Event()
        self._changes = self._saved = 0
        if totals is not None:
            self._load(totals)
            self._save()

    def report(self, *reports: Report) -> None:
        """Count reports that were not counted yet. When this returns they will be known, whatever happens."""
        with self._lock:
            for report in reports:
                self._take_in(report)
            self._changes += 1
            change = self._changes
        with self._saving:  # one save for all that came while the last one was under way
            if self._saved < change:
                self._save()

    def unknown(self, source: str, numbers: Iterable[int]) -> list[int]:
        """Those of a source's reports that were not counted."""
        with self._lock:
            known = self._sources.get(source, _Source()).counted
            return [number for number in numbers if number not in known]

    def serve(self, port: int, host: str = "127.0.0.1") -> int:
        """Answer `GET /metrics` until `close`, and take leave of processes that have gone silent; see `Registry`."""
        listening = self.registry.serve(port, host)
        threading.Thread(target=self._look_around, name="metrics hub", daemon=True).start()
        return listening

    def close(self) -> None:
        """Stop serving. Totals are saved."""
        self._closed.set()
        self.registry.close()
        self._save()

    def _look_around(self) -> None:
        while not self._closed.wait(SILENT_SECONDS / 6):
            self.forget_the_silent()

    def forget_the_silent(self) -> None:
        """Leave out what processes said that have been silent for too long, and jobs that are long over."""
        with self._lock:
            now = time.time()
            for process in [each for each, heard in self._heard.items() if heard < now - SILENT_SECONDS]:
                self.registry.forget(process)
                del self._heard[process]
            for source in [name for name, s in self._sources.items() if s.heard < now - REMEMBERED_SECONDS]:
                del self._sources[source]
            self.registry.set(HUB_SOURCES, len(self._heard))
            latest = self.registry.said(JOB_LAST_COMMIT)
            for (job,) in sorted(latest, key=lambda labels: latest[labels], reverse=True)[MOST_JOBS:]:
                self.registry.forget_named("job_name", job)

    def _take_in(self, report: Report) -> None:
        source = self._sources.setdefault(report.source, _Source())
        process = report.process or report.source
        source.heard = self._heard[process] = time.time()
        is_known = report.number in source.counted
        if not is_known:
            source.counted.add(report.number)
            self.registry.apply(report.delta, process)
        self.registry.add(HUB_REPORTS, 1, result="repeated" if is_known else "counted")
        self.registry.set(HUB_LAST_REPORT, time.time())
        self.registry.set(HUB_SOURCES, len(self._heard))

    def _save(self) -> None:
        if self._totals is None:
            return
        with self._lock:
            change = self._changes
            sources = {name: {"heard": s.heard, "reports": s.counted.ranges()} for name, s in self._sources.items()}
            content = {"format": FORMAT, "sources": sources, **_plain(self.registry.snapshot())}
        beside = self._totals.with_name(self._totals.name + ".new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._totals)
        except OSError as error:
            raise ConfigError(
                f"the totals of metrics cannot be kept in {self._totals}: {error}; name a file in a folder that can be "
                "written"
            ) from error
        self._saved = change

    def _load(self, totals: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                content = json.loads(totals.read_text(encoding="utf-8"))
                self.registry.restore(_delta(content))
                for name, source in content["sources"].items():
                    self._sources[name] = _Source(Counted(source["reports"]), source["heard"])
            except FileNotFoundError:
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{totals} holds no totals of metrics, or is damaged: {error!r}; move it away to begin at 0"
                ) from error


def _plain(delta: Delta) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "counters": [[name, labels, value] for (name, labels), value in delta.counters.items()],
        "histograms": [[name, labels, counts] for (name, labels), counts in delta.histograms.items()],
        "gauges": [[name, labels, value] for (name, labels), value in delta.gauges.items()],
    }


def _delta(content: dict[str, Any]) -> Delta:
    """What an older version counted under a name, labels or buckets that there are no more is left out."""
    if content["format"] != FORMAT:
        raise ValueError(f"it is of format {content['format']}, and this version reads {FORMAT}")
    return Delta(
        counters=dict(_known(content["counters"])),
        histograms={
            series: tuple(counts) for series, counts in _known(content["histograms"])
            if len(counts) == len(CATALOGUE[series[0]].buckets) + 2
        },
        gauges=dict(_known(content["gauges"])),
    )  # fmt: skip


def _known(lines: Iterable[Sequence[Any]]) -> Iterable[tuple[Series, Any]]:
    for name, labels, value in lines:
        if name in CATALOGUE and len(labels) == len(CATALOGUE[name].label_names):
            yield (name, tuple(labels)), value
