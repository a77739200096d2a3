"""The service: whether it keeps its promise, how fast it answers, what waits, and who asks."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import StackingMode

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import Query, bars, big, lines
from monitoring.dashboards.queries import Of, ratio
from monitoring.objectives import AVAILABILITY, FAILED, LATENCY_SECONDS, LATENCY_SHARE, OWED
from skipvision import metrics
from skipvision.metrics import Metric

BURN = ((None, "green"), (1.0, "red"))
SHARES = (0.5, 0.9, 0.99)

failed, owed = Of(metrics.REQUESTS, status=FAILED), Of(metrics.REQUESTS, status=OWED)
begun = Of(metrics.FIRST_TOKEN_SECONDS, workload="online")


def percentiles(metric: Metric, **where: str) -> list[Query]:
    return [Query(Of(metric, **where).percentile(share), f"p{share * 100:g}") for share in SHARES]


PROMISE = Row(
    title="The promise",
    panels=[
        big(
            "Availability",
            f"Share of the requests in the time shown that were owed an answer and got one. Promised: "
            f"{AVAILABILITY:.1%}. Wrong, limited and given up requests count neither way.",
            Query(f"1 - {ratio(failed.in_range(), owed.in_range())}"),
            unit="percentunit",
            steps=((None, "red"), (AVAILABILITY, "green")),
            width=6,
            height=8,
            nothing="no requests",
        ),
        big(
            f"Begun within {LATENCY_SECONDS:g} s",
            f"Share of the requests that had their first token within {LATENCY_SECONDS:g} s of an engine having them. "
            f"Promised: {LATENCY_SHARE:.0%}.",
            Query(begun.within(LATENCY_SECONDS, window="$__range")),
            unit="percentunit",
            steps=((None, "red"), (LATENCY_SHARE, "green")),
            width=6,
            height=8,
            nothing="no answers",
        ),
        lines(
            "How fast the promise is used up",
            "1: errors, or slow answers, come just as fast as the promise allows. 10: ten times as fast. A short peak "
            "matters little; a line that stays above the dashed one breaks the promise.",
            Query(f"{ratio(failed.per_second(), owed.per_second())} / {1 - AVAILABILITY:.4g}", "availability"),
            Query(f"(1 - {begun.within(LATENCY_SECONDS)}) / {1 - LATENCY_SHARE:.4g}", "latency"),
            unit="suffix:×",
            steps=BURN,
            width=12,
            height=8,
        ),
    ],
)

REQUESTS = Row(
    title="Requests",
    panels=[
        lines(
            "Requests a second, by status",
            "Chat requests with a known key by HTTP status, stacked. 429: told to come again; 499: given up by whoever "
            "asked; 500 and 503: the service's own failures.",
            Query(Of(metrics.REQUESTS).per_second("status"), "{{status}}"),
            unit="reqps",
            stacked=StackingMode.NORMAL,
            width=12,
        ),
        lines(
            "Seconds to the last byte",
            "From the head of a request to the end of its answer, for answered requests: half, nine in ten, and 99 in "
            "100 are faster.",
            *percentiles(metrics.REQUEST_SECONDS),
            unit="s",
            width=12,
        ),
        lines(
            "Seconds to the first token",
            "From the moment an engine was given a request to its first token. High while the queue is short: prompts "
            f"are long, or the batch is full. The dashed line is the promise for {LATENCY_SHARE:.0%}.",
            *percentiles(metrics.FIRST_TOKEN_SECONDS, workload="online"),
            unit="s",
            steps=((None, "green"), (LATENCY_SECONDS, "red")),
            width=12,
        ),
        lines(
            "Seconds between tokens",
            "From each token of an answer to the next: what a reader of a stream feels.",
            *percentiles(metrics.TOKEN_GAP_SECONDS, workload="online"),
            unit="s",
            width=12,
        ),
    ],
)

ROOM = Row(
    title="Queue and replicas",
    panels=[
        lines(
            "In work and waiting",
            "Chat requests that have not ended, and those among them that wait in an engine's line. A line that grows "
            "asks for more replicas.",
            Query(Of(metrics.REQUESTS_RUNNING).now(), "in work"),
            Query(Of(metrics.QUEUE_DEPTH, stage="engine", workload="online").now(), "waiting"),
            unit="short",
        ),
        lines(
            "Replicas",
            "How many there should be, and how many run, start, or neither. Wanted above running for long: nodes are "
            "missing, or replicas do not come up.",
            Query(Of(metrics.REPLICAS).now("state"), "{{state}}"),
            unit="short",
        ),
        lines(
            "Engines that report",
            "By model. Fewer than running replicas: an engine is alive and silent.",
            Query(Of(metrics.ENGINES, workload="online").now("model"), "{{model}}"),
            unit="short",
        ),
    ],
)

tenants = Of(metrics.TENANT_REQUESTS)
work = Of(metrics.TENANT_WORK_SECONDS)

TENANTS = Row(
    title="Tenants",
    panels=[
        lines(
            "Requests a second",
            "By tenant, however they ended.",
            Query(tenants.per_second("tenant"), "{{tenant}}"),
            unit="reqps",
        ),
        lines(
            "How requests ended",
            "Answered, refused as wrong, told to come again, given up by whoever asked, or failed by the service.",
            Query(tenants.per_second("outcome"), "{{outcome}}"),
            unit="reqps",
            stacked=StackingMode.NORMAL,
        ),
        bars(
            "Limited requests",
            "Share of each tenant's requests in the time shown that were told to come again. A high bar: the tenant "
            "asks for more than it may, or its limits are too tight.",
            Query(
                ratio(Of(metrics.TENANT_REQUESTS, outcome="limited").in_range("tenant"), tenants.in_range("tenant")),
                "{{tenant}}",
            ),
            unit="percentunit",
            steps=((None, "green"), (0.05, "orange"), (0.25, "red")),
        ),
        lines(
            "Tokens a second",
            "Of answered requests: read as prompt, visual tokens included, and generated.",
            Query(Of(metrics.TENANT_TOKENS).per_second("tenant", "direction"), "{{tenant}}, {{direction}}"),
            unit="suffix:tokens/s",
            width=12,
        ),
        bars(
            "Share of the work",
            "Of the model's measured work in the time shown: what online costs are split by.",
            Query(
                f"{work.in_range('tenant')} / on () group_left () ({work.whatever('tenant').in_range()} > 0)",
                "{{tenant}}",
            ),
            unit="percentunit",
            width=12,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-service",
    title="skipvision: service",
    description="The HTTP service: availability and speed beside what is promised, what waits, and each tenant's part.",
    rows=[PROMISE, REQUESTS, ROOM, TENANTS],
    hours=3,
)
