"""Jobs on a Ray cluster, through its job server.

The job file travels in the command that starts the job, as its standard input, and the price list beside it. Nothing is
uploaded, unpacked on nodes or kept in a package that Ray throws away after a while, and no worker's folder or path is
changed: what runs is what the cluster's machines have installed. The same text stands in the submission's metadata,
from which the job is started again.

Ray keeps an id for ever. So the first start of a job has its id, and later ones `-2`, `-3` behind it; of two commands
that start the same job at once, Ray lets one have the id, and the other finds it there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from pipelines.submission.place import Status, SubmittedJob, Tell
from pipelines.submission.ray_server import JobServer, connect
from pipelines.submission.request import JobRequest
from skipvision.errors import JobStoppedError
from skipvision.version import __version__

STOP_SECONDS = 60
"""That Ray leaves a driver to end by itself; its own 3 seconds may be too few to let the job's lease go."""

_METADATA = "skipvision"
_JOB, _PRICES, _ID, _ATTEMPT = "job", "prices", "id", "attempt"
_AWAY_SECONDS = 120.0
"""For so long a job server may not answer while a job is followed."""
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 30.0
"""Between the end of a driver and the moment that Ray says so."""
_STATUS = {
    JobStatus.PENDING: Status.WAITING,
    JobStatus.RUNNING: Status.RUNNING,
    JobStatus.SUCCEEDED: Status.DONE,
    JobStatus.FAILED: Status.FAILED,
    JobStatus.STOPPED: Status.CANCELLED,
}


class RayJobs:
    """The jobs of a cluster.

    Args:
        address: see `connect`.
    """

    def __init__(self, address: str | None) -> None:
        self._server: JobServer = connect(address)

    @property
    def flags(self) -> str:
        return f"--address {self._server.address}"

    def is_this_machine(self) -> bool:
        return self._server.is_this_machine()

    def jobs(self) -> list[SubmittedJob]:
        last: dict[str, JobDetails] = {}
        for details in self._server.list_jobs():
            metadata = details.metadata or {}
            if _METADATA not in metadata:
                continue
            known = last.get(metadata[_ID])
            if known is None or _attempt(known) < _attempt(details):
                last[metadata[_ID]] = details
        return sorted(map(_job, last.values()), key=lambda job: job.started or datetime.max.replace(tzinfo=UTC))

    def find(self, job_id: str) -> SubmittedJob | None:
        return next((job for job in self.jobs() if job.id == job_id), None)

    def start(self, request: JobRequest, *, after: SubmittedJob | None) -> SubmittedJob:
        attempt = 1 if after is None else _attempt_of(after) + 1
        handle = request.id if attempt == 1 else f"{request.id}-{attempt}"
        try:
            self._server.submit_job(
                entrypoint=entrypoint(request),
                submission_id=handle,
                runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
                metadata=_metadata(request, attempt),
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise JobStoppedError(f"{request.id} could not be started: {_last_line(error)}") from error
        return self._look(handle)

    def follow(self, job: SubmittedJob, tell: Tell) -> SubmittedJob:
        log = _Log(tell)
        while not (now := self._patiently(lambda: self._look(job.handle))).status.is_over:
            if now.status is Status.RUNNING:
                asyncio.run(log.read(self._server, job.handle))
            time.sleep(_LOOK_SECONDS)
        asyncio.run(log.read(self._server, job.handle))
        return now

    def stop(self, job: SubmittedJob) -> SubmittedJob:
        self._server.stop_job(job.handle)
        until = time.monotonic() + STOP_SECONDS + _GRACE_SECONDS
        while not (now := self._look(job.handle)).status.is_over:
            if time.monotonic() > until:
                raise JobStoppedError(
                    f"{job.id} was told to end and has not; look again: skipvision jobs show {job.id}"
                )
            time.sleep(_LOOK_SECONDS)
        return now

    def _look(self, handle: str) -> SubmittedJob:
        return _job(self._server.get_job_info(handle))

    @staticmethod
    def _patiently(look: Callable[[], SubmittedJob]) -> SubmittedJob:
        """Look again when the server does not answer for a moment."""
        until = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                return look()
            except JobStoppedError:
                if time.monotonic() > until:
                    raise
                time.sleep(_LOOK_SECONDS)


class _Log:
    """A log that is read from its start whenever the way to it was cut, and told once."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._told, self._line = tell, 0, ""

    async def read(self, server: JobServer, handle: str) -> None:
        """Tell what has not been told yet, until the job is over or the way is cut."""
        passed = 0
        try:
            async for piece in server.log(handle):
                fresh = piece[max(0, self._told - passed) :]
                passed += len(piece)
                self._told = max(self._told, passed)
                self._say(fresh)
        except (aiohttp.ClientError, OSError, RuntimeError):
            return  # whoever follows looks at the job, and comes back

    def _say(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._tell(line)


def entrypoint(request: JobRequest) -> str:
    """The command of the driver, a job's files included, for a POSIX shell.

    No line of either file is a word alone at the start of a line, as the ends are: both are mappings in YAML.
    """
    prices = request.price_file()
    files = {"ray_address": "auto"} | ({"prices": "/dev/fd/3"} if prices is not None else {})
    command = "exec python -m skipvision.cli run --json /dev/stdin >/dev/null"
    if prices is None:
        return f"{command} <<'JOB'\n{request.job_file(**files)}JOB\n"
    return f"{command} 3<<'PRICES' <<'JOB'\n{prices}PRICES\n{request.job_file(**files)}JOB\n"


def _metadata(request: JobRequest, attempt: int) -> dict[str, str]:
    prices = request.price_file()
    said = {
        _METADATA: __version__, _ID: request.id, _ATTEMPT: str(attempt), "name": request.name,
        "output": request.output, _JOB: request.job_file(),
    }  # fmt: skip
    return said if prices is None else {**said, _PRICES: prices}


def _job(details: JobDetails) -> SubmittedJob:
    metadata = details.metadata or {}
    status = _STATUS[details.status]
    return SubmittedJob(
        id=metadata[_ID],
        handle=str(details.submission_id),
        request=JobRequest.from_files(metadata[_JOB], metadata.get(_PRICES)),
        status=status,
        started=datetime.fromtimestamp(details.start_time / 1000, UTC) if details.start_time else None,
        message=_last_line(details.message) if status is Status.FAILED else "",
        exit_code=details.driver_exit_code,
    )


def _attempt(details: JobDetails) -> int:
    return int((details.metadata or {})[_ATTEMPT])


def _attempt_of(job: SubmittedJob) -> int:
    return 1 if job.handle == job.id else int(job.handle.removeprefix(f"{job.id}-"))


def _last_line(said: Any) -> str:
    lines = [line for line in str(said or "").splitlines() if line.strip(" .")]
    return lines[-1].strip() if lines else ""
