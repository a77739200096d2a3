"""Where a job is made to fail, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A place in the course of a job."""

    name: str
    place: str
    """A name of `skipvision.failpoints`."""
    match: str = ""
    often: bool = False
    """Whether a small job passes it more than once."""
    on_disk_only: bool = False
    in_storage: bool = True
    """Whether storage could fail there."""

    in_driver: bool = False
    """Whether a job on a cluster passes it in the process that drives it, and not in its workers."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can happen there."""
        return KINDS if self.in_storage else tuple(kind for kind in KINDS if kind not in STORAGE_KINDS)


STORAGE_KINDS = ("store error", "disk full")
KINDS = ("kill", "freeze", "polite exit", *STORAGE_KINDS, "memory error")
"""`freeze`: the process is stopped, another one does the work, and then it wakes and goes on."""

POINTS = (
    Point("the input is being frozen", "create", "input/", often=True, in_driver=True),
    Point("the input is frozen, its list of files is not", "create", "sources.parquet", in_driver=True),
    Point("before the plan", "create", "plan.json", in_driver=True),
    Point("the plan is there, nobody was told", "created", "plan.json", in_driver=True),
    Point("taking the lease", "swap", "lease.json", in_driver=True),
    Point("sweeping", "list", "input", in_driver=True),
    Point("listing what is committed", "list", "data", in_driver=True),
    Point("reading a shard", "read", "/shard-", often=True),
    Point("noting what is tried", "create", "attempts/", often=True),
    Point("answering", "answer", often=True, in_storage=False),
    Point("answered, the note still there", "remove", "attempts/", often=True),
    Point("before a commit", "create", "data/", often=True),
    Point("before a commit gets its name", "staged", "data/", often=True, on_disk_only=True),
    Point("committed, nobody was told", "created", "data/", often=True),
    Point("before the report", "replace", "report.json", in_driver=True),
    Point("before the manifest", "create", "_MANIFEST.json", in_driver=True),
    Point("the manifest is there, nobody was told", "created", "_MANIFEST.json", in_driver=True),
    Point("before _SUCCESS", "create", "_SUCCESS", in_driver=True),
    Point("_SUCCESS is there, nobody was told", "created", "_SUCCESS", in_driver=True),
)


def wish(point: Point, kind: str, count_in: Path, *, after: int = 0) -> dict[str, Any]:
    """What `skipvision.failpoints` reads: this failure, there, once.

    Args:
        count_in: a folder for a file at each pass, by which `has_struck` knows.
        after: passes that are let through first.
    """
    return {point.place: {"what": kind, "match": point.match, "after": after, "times": 1, "count_in": str(count_in)}}


def has_struck(count_in: Path, *, after: int = 0) -> bool:
    """Whether the failure has happened."""
    return struck_process(count_in, after=after) is not None


def struck_process(count_in: Path, *, after: int = 0) -> int | None:
    """The process in which the failure happened, or a `pause` lasts; None if it has not happened yet."""
    passes = sorted(count_in.iterdir()) if count_in.exists() else []
    return int(passes[after].name.partition("-")[2]) if len(passes) > after else None
