"""Jobs: how far each one is, how fast, and what went wrong on the way."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import StackingMode

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import Column, Query, bars, big, grid, lines
from monitoring.dashboards.queries import Of, ratio
from skipvision import metrics

finished = Of(metrics.ROWS, workload="batch", outcome=("ok", "error"))

ATTEMPT = {"0": ("ended", "text"), "1": ("running", "green")}


def rows(state: str) -> str:
    return Of(metrics.JOB_ROWS, state=state).now("job_name")


def seconds_since(expression: str) -> str:
    return f"time() - {expression}"


JOBS = Row(
    title="Jobs",
    panels=[
        big(
            "Running jobs",
            "Jobs whose attempt has begun and not ended.",
            Query(Of(metrics.JOB_RUNNING).now(total=True)),
            unit="short",
            width=6,
        ),
        big(
            "Rows not committed",
            "What jobs still have before them, all together.",
            Query(Of(metrics.QUEUE_DEPTH, stage="job").now()),
            unit="short",
            width=6,
        ),
        big(
            "Rows that failed",
            "Share of the rows that jobs committed in the time shown and that ended as an error.",
            Query(ratio(Of(metrics.ROWS, workload="batch", outcome="error").in_range(), finished.in_range())),
            unit="percentunit",
            steps=((None, "green"), (0.01, "orange"), (0.05, "red")),
            width=6,
        ),
        big(
            "Rows a second",
            "Rows that jobs committed, answered or ended as an error; not those taken over from earlier attempts.",
            Query(finished.per_second(), "rows"),
            unit="suffix:rows/s",
            trend=True,
            width=6,
        ),
        grid(
            "All jobs",
            "One line for each job: its attempt, the share of rows whose results are committed, rows by state, the "
            "time that the rest will take at the speed so far, and how long ago it last committed and was finished. "
            "Running, with a last commit long ago: stalled, or killed and not started again.",
            Column(name="Attempt", expr=Of(metrics.JOB_RUNNING).now("job_name"), unit="short", says=ATTEMPT),
            Column(name="Done", expr=Of(metrics.JOB_PROGRESS).now("job_name"), unit="percentunit"),
            Column(name="Waiting", expr=rows("waiting"), unit="short"),
            Column(name="Answered", expr=rows("ok"), unit="short"),
            Column(name="Errors", expr=rows("error"), unit="short"),
            Column(name="Remaining", expr=Of(metrics.JOB_REMAINING).now("job_name"), unit="s"),
            Column(name="Last commit, ago", expr=seconds_since(Of(metrics.JOB_LAST_COMMIT).now("job_name")), unit="s"),
            Column(
                name="Last success, ago", expr=seconds_since(Of(metrics.JOB_LAST_SUCCESS).now("job_name")), unit="s"
            ),
            labels={"job_name": "Job"},
            height=8,
        ),
    ],
)

PROGRESS = Row(
    title="Progress",
    panels=[
        lines(
            "Share committed",
            "Of each job's rows. A straight rise is a steady speed; a flat line is a stall or the end.",
            Query(Of(metrics.JOB_PROGRESS).now("job_name"), "{{job_name}}"),
            unit="percentunit",
            high=1,
        ),
        lines(
            "Rows by state",
            "Waiting, answered and ended as an error; the three add up to the rows of the jobs' inputs.",
            Query(Of(metrics.JOB_ROWS).now("state", total=True), "{{state}}"),
            unit="short",
            stacked=StackingMode.NORMAL,
        ),
        lines(
            "Time remaining",
            "How long the rest will take at the speed of the attempt so far.",
            Query(Of(metrics.JOB_REMAINING).now("job_name"), "{{job_name}}"),
            unit="s",
        ),
        lines(
            "Since the last commit",
            "Saws are healthy: each tooth is a shard. A line that climbs is a job that does not commit.",
            Query(seconds_since(Of(metrics.JOB_LAST_COMMIT).now("job_name")), "{{job_name}}"),
            unit="s",
        ),
        lines(
            "Rows a second, by outcome",
            "Rows that jobs committed, by how they ended. Resumed rows were taken over from an earlier attempt: a peak "
            "is a restart, and no work.",
            Query(Of(metrics.ROWS, workload="batch").per_second("outcome"), "{{outcome}}"),
            unit="suffix:rows/s",
        ),
        lines(
            "Where the time goes",
            "Share of each stage in the seconds that tasks and workers spent. Read and prepare high while engines "
            "wait: more processors, or faster storage, would help more than more GPUs.",
            Query(Of(metrics.STAGE_SECONDS, workload="batch").per_second("stage"), "{{stage}}"),
            unit="suffix:s/s",
            stacked=StackingMode.PERCENT,
        ),
    ],
)

ERRORS = Row(
    title="Errors and endings",
    panels=[
        lines(
            "Errors a second, by stage",
            "Rows that ended as an error: what was asked, getting an image, reading it, answering.",
            Query(Of(metrics.ERRORS, workload="batch").per_second("stage"), "{{stage}}"),
            unit="suffix:rows/s",
        ),
        bars(
            "Errors by code",
            "Rows in the time shown that ended with each error code, the ten most frequent. The code stands in the "
            "results beside each row.",
            Query(
                f"topk(10, {Of(metrics.ERRORS, workload='batch').in_range('stage', 'code')} > 0)",
                "{{stage}}: {{code}}",
            ),
            unit="short",
            whole=True,
            steps=((None, "orange"),),
        ),
        bars(
            "How answers ended",
            "Answers in the time shown: the model's own end or a stop string, the limit of tokens, given up, or a "
            "request that turned out to be wrong. Many at the limit: answers are cut off.",
            Query(Of(metrics.ANSWERS, workload="batch").in_range("finish_reason"), "{{finish_reason}}"),
            unit="short",
            whole=True,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-jobs",
    title="skipvision: jobs",
    description="Batch jobs: how far each is, how fast, when it will be done, and what its rows failed on.",
    rows=[JOBS, PROGRESS, ERRORS],
    hours=12,
)
