"""What Ray's job server and Kubernetes have in common: a job is there once, is followed, stopped and started again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pipelines.submission.request import JobRequest
from pipelines.submission.standing import is_finished
from skipvision.errors import ConfigError, JobStoppedError

Tell = Callable[[str], None]
"""Takes one line for the person who follows a job."""


class Status(StrEnum):
    """How a job stands in its cluster."""

    WAITING = "waiting"
    """For machines, or for its process to start."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (Status.DONE, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedJob:
    """A job as its cluster knows it."""

    id: str
    """What this program calls it, however often it was started."""
    handle: str
    """What its cluster calls its last start."""
    request: JobRequest
    status: Status
    started: datetime | None = None
    message: str = ""
    """Why it waits or failed, in the cluster's words."""
    exit_code: int | None = None
    """Of its process, where the cluster tells."""


class Place(Protocol):
    """Where jobs are sent."""

    @property
    def flags(self) -> str:
        """What a command needs to find this place again."""

    def is_this_machine(self) -> bool:
        """Whether it is known that all of its machines are this one, so that paths mean the same there."""

    def jobs(self) -> list[SubmittedJob]:
        """All jobs that were sent there, each by its last start."""

    def find(self, job_id: str) -> SubmittedJob | None: ...

    def start(self, request: JobRequest, *, after: SubmittedJob | None) -> SubmittedJob:
        """Start a job that does not run there.

        Args:
            after: its last start, which is over, as it was seen; None if none was. Of several that saw the same, one
                starts the job, and the others have it.
        """

    def follow(self, job: SubmittedJob, tell: Tell) -> SubmittedJob:
        """Tell what a job says until it is over."""

    def stop(self, job: SubmittedJob) -> SubmittedJob:
        """Have a job end politely, and wait until it has."""


def submit(place: Place, request: JobRequest) -> tuple[SubmittedJob, bool]:
    """Start a job, unless it is there already.

    Returns:
        The job, and whether it was there: running, or done with these settings.

    Raises:
        ConfigError: it runs there with other settings.
    """
    found = place.find(request.id)
    if found is None:
        return place.start(request, after=None), False
    differ = request.differences(found.request)
    if not found.status.is_over:
        if differ:
            raise ConfigError(
                f"{found.id} is {found.status} there with another {' and another '.join(differ)}; let it end, or stop "
                f"it first: skipvision jobs cancel {found.id} {place.flags}"
            )
        return found, True
    if found.status is Status.DONE and not differ and is_finished(request.output):
        return found, True
    return place.start(request, after=found), False


def must_be_done(job: SubmittedJob, place: Place) -> None:
    """Raise unless a job that is over did what it should.

    Raises:
        ConfigError: it found its settings, input or model to be wrong.
        JobStoppedError: it failed or was stopped, and goes on when it is started again.
    """
    if job.status is Status.DONE:
        return
    why = f": {job.message}" if job.message else ""
    if job.exit_code == 2:
        raise ConfigError(f"{job.id} was refused where it ran; its log says why{why}")
    raise JobStoppedError(
        f"{job.id} {'was cancelled' if job.status is Status.CANCELLED else 'failed'}{why}; what it committed to "
        f"{job.request.output} stays, and it goes on from there: skipvision jobs resume {job.id} {place.flags}"
    )
