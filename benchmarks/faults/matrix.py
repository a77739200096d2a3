"""Where a job is made to fail, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A place in the course of a job."""

    name: str
    place: str
    """A name of `pipelines.failpoints`."""
    match: str = ""
    often: bool = False
    """Whether a small job passes it more than once."""
    on_disk_only: bool = False
    in_storage: bool = True
    """Whether storage could fail there."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can happen there."""
        return KINDS if self.in_storage else tuple(kind for kind in KINDS if kind not in STORAGE_KINDS)


STORAGE_KINDS = ("store error", "disk full")
KINDS = ("kill", "freeze", "polite exit", *STORAGE_KINDS, "memory error")
"""`freeze`: the process is stopped, another one does the work, and then it wakes and goes on."""

POINTS = (
    Point("the input is being frozen", "create", "input/", often=True),
    Point("the input is frozen, its list of files is not", "create", "sources.parquet"),
    Point("before the plan", "create", "plan.json"),
    Point("the plan is there, nobody was told", "created", "plan.json"),
    Point("taking the lease", "swap", "lease.json"),
    Point("sweeping", "list", "input"),
    Point("listing what is committed", "list", "data"),
    Point("reading a shard", "read", "/shard-", often=True),
    Point("noting what is tried", "create", "attempts/", often=True),
    Point("answering", "answer", often=True, in_storage=False),
    Point("answered, the note still there", "remove", "attempts/", often=True),
    Point("before a commit", "create", "data/", often=True),
    Point("before a commit gets its name", "staged", "data/", often=True, on_disk_only=True),
    Point("committed, nobody was told", "created", "data/", often=True),
    Point("before the report", "replace", "report.json"),
    Point("before the manifest", "create", "_MANIFEST.json"),
    Point("the manifest is there, nobody was told", "created", "_MANIFEST.json"),
    Point("before _SUCCESS", "create", "_SUCCESS"),
    Point("_SUCCESS is there, nobody was told", "created", "_SUCCESS"),
)


def wish(point: Point, kind: str, count_in: Path, *, after: int = 0) -> dict[str, Any]:
    """What `pipelines.failpoints` reads: this failure, there, once.

    Args:
        count_in: a folder for a file at each pass, by which `has_struck` knows.
        after: passes that are let through first.
    """
    return {point.place: {"what": kind, "match": point.match, "after": after, "times": 1, "count_in": str(count_in)}}


def has_struck(count_in: Path, *, after: int = 0) -> bool:
    """Whether the failure has happened."""
    return count_in.exists() and len(list(count_in.iterdir())) > after
