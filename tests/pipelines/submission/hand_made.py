"""Jobs without machines: a folder in which a job stands as far as a test says, and a place that only remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import yaml

from pipelines.folder import JobFolder
from pipelines.layout import REPORT_HTML, REPORT_JSON, SUCCESS
from pipelines.statistics import JobReport, RowSeconds, TokenCounts
from pipelines.submission.place import Status, SubmittedJob, Tell
from pipelines.submission.request import JobRequest
from skipvision.engine import EngineCounts
from skipvision.engine.costs import Cost
from tests.pipelines.committed_jobs import commit, planned_job

COLUMNS = pa.schema([("path", pa.string())])
ROWS = ("a", "b", "c", "d", "e")


def job_file(folder: Path, **settings: object) -> Path:
    """A job file whose output is `folder`/job and whose model only a cluster can see."""
    path = folder / "job.yaml"
    asked = {"input": "s3://pictures/2026", "output": str(folder / "job"), "model": "org/somewhere", **settings}
    path.write_text(yaml.safe_dump(asked))
    return path


def commit_rows(folder: Path, shards: int) -> JobFolder:
    """A job of five rows in three shards, of which the first few are committed."""
    job = (
        planned_job(folder, COLUMNS) if not (folder / "job" / "plan.json").exists() else JobFolder(str(folder / "job"))
    )
    for shard in range(shards):
        keys = list(ROWS[2 * shard : 2 * shard + 2])
        if f"data/shard-{shard:05d}.parquet" not in job.names("data"):
            commit(job, shard, {"row_key": keys, "path": keys}, COLUMNS)
    return job


def finish(folder: Path) -> None:
    """The same job, done."""
    job = commit_rows(folder, 3)
    report = JobReport(
        rows=5, ok=5, wall_seconds=2.0, rows_per_second=2.5, timeline=(), shards=3, resumed_shards=0, other_files=0,
        model="org/somewhere", skip="off", errors_by_code={}, tokens=TokenCounts(), actual=Cost(), all_tokens=Cost(),
        stage_seconds={}, finish_reasons={}, row_seconds=RowSeconds(), engine=EngineCounts(),
    )  # fmt: skip
    job.replace(REPORT_JSON, report.to_json().encode())
    job.replace(REPORT_HTML, b"<html>the report</html>")
    job.create(SUCCESS, report.to_json().encode())


@dataclass
class Memory:
    """A place that starts nothing."""

    held: dict[str, SubmittedJob] = field(default_factory=dict)
    starts: int = 0
    flags: str = "--address http://there:8265"

    def is_this_machine(self) -> bool:
        return False

    def jobs(self) -> list[SubmittedJob]:
        return list(self.held.values())

    def find(self, job_id: str) -> SubmittedJob | None:
        return self.held.get(job_id)

    def start(self, request: JobRequest, *, after: SubmittedJob | None) -> SubmittedJob:
        self.starts += 1
        self.held[request.id] = SubmittedJob(
            id=request.id, handle=f"{request.id}-{self.starts}", request=request, status=Status.RUNNING
        )
        return self.held[request.id]

    def follow(self, job: SubmittedJob, tell: Tell) -> SubmittedJob:
        raise KeyboardInterrupt

    def stop(self, job: SubmittedJob) -> SubmittedJob:
        return self.ended(job.id, Status.CANCELLED)

    def ended(self, job_id: str, status: Status) -> SubmittedJob:
        self.held[job_id] = replace(self.held[job_id], status=status)
        return self.held[job_id]
