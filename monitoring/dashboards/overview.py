"""The first board: what skipping saved, before anything else; then the work, and whether the numbers are alive."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import GAIN, SPENT, Query, big, lines
from monitoring.dashboards.queries import (
    Of,
    ratio,
    saved_money,
    saved_money_per_hour,
    saved_share,
    spent_where_known,
)
from skipvision import metrics
from skipvision.metrics import BASES

COST_PER_1000_IMAGES = ratio(f"1000 * {Of(metrics.COST).in_range()}", Of(metrics.IMAGES, outcome="ok").in_range())
CHANGED = ratio(Of(metrics.COMPARED_ROWS, answer="different").in_range(), Of(metrics.COMPARED_ROWS).in_range())
PRICE_LIST = Query(f"1000 * {Of(metrics.PRICE_LIST).now('price_list')}", "{{price_list}}")


def spent_beside_all_tokens() -> list[timeseries.Panel]:
    """Like beside like: for each basis a panel with the work whose baseline is known."""
    return [
        lines(
            f"Spent and all tokens an hour, {basis}",
            "Dollars an hour that were spent, and that all visual tokens would have cost, on work whose baseline is "
            f"{basis}. The room between the lines is what was saved.",
            Query(f"3600 * {spent_where_known(metrics.COST, metrics.BASELINE_COST, basis)}", SPENT),
            Query(f"3600 * {Of(metrics.BASELINE_COST, basis=basis).per_second('basis')} > 0", "all tokens, {{basis}}"),
            unit="currencyUSD",
        )
        for basis in BASES
    ]


SAVINGS = Row(
    title="What skipping saved",
    panels=[
        big(
            "Money saved",
            "What all visual tokens would have cost, less what was spent, in the time shown. Measured: from rows that "
            "were answered both ways. Modelled: from a formula. Red and below 0: skipping cost more than it saved.",
            *(Query(saved_money(basis), "{{basis}}") for basis in BASES),
            unit="currencyUSD",
            steps=GAIN,
            width=8,
            nothing="not measured",
            opens="skipvision-cost",
        ),
        big(
            "Share of the cost saved",
            "The money saved, as a share of what all visual tokens would have cost, by the same two bases.",
            *(Query(saved_share(basis), "{{basis}}") for basis in BASES),
            unit="percentunit",
            steps=GAIN,
            width=8,
            nothing="not measured",
            opens="skipvision-cost",
        ),
        big(
            "Answers that changed",
            "Of the rows that were also answered with all visual tokens, the share whose answer was another one. "
            "It is the price of the savings; whether another answer is a worse one is not said here.",
            Query(CHANGED),
            unit="percentunit",
            steps=((None, "green"), (0.1, "orange"), (0.3, "red")),
            width=4,
            nothing="not compared",
            opens="skipvision-skipping",
        ),
        big(
            "Cost of 1,000 images",
            "Dollars spent in the time shown for each thousand images that the model saw. Idle time counts.",
            Query(COST_PER_1000_IMAGES),
            unit="currencyUSD",
            opens="skipvision-cost",
        ),
        lines(
            "Money saved an hour",
            "How fast money is saved, by basis. Below the dashed line at 0 skipping costs more than it saves. "
            "Measured and modelled are two answers to one question: they are compared, never added.",
            *(Query(saved_money_per_hour(basis), "{{basis}}") for basis in BASES),
            unit="currencyUSD",
            steps=GAIN,
        ),
        *spent_beside_all_tokens(),
    ],
)

WORK = Row(
    title="The work",
    panels=[
        big(
            "Images a second",
            "Images that the model saw, of jobs and of the service together, now and how it came to that.",
            Query(Of(metrics.IMAGES, outcome="ok").per_second(), "images"),
            unit="suffix:images/s",
            trend=True,
            width=6,
        ),
        big(
            "Images that failed",
            "Share of the images in the time shown whose row ended as an error.",
            Query(ratio(Of(metrics.IMAGES, outcome="error").in_range(), Of(metrics.IMAGES).in_range())),
            unit="percentunit",
            steps=((None, "green"), (0.01, "orange"), (0.05, "red")),
            width=6,
            opens="skipvision-jobs",
        ),
        big(
            "Running jobs",
            "Jobs whose attempt has begun and not ended. An attempt that was killed counts until the next one ends.",
            Query(Of(metrics.JOB_RUNNING).now(total=True)),
            unit="short",
            width=6,
            opens="skipvision-jobs",
        ),
        big(
            "Chat requests in work",
            "Requests to the service that have not ended.",
            Query(Of(metrics.REQUESTS_RUNNING).now(), "requests"),
            unit="short",
            trend=True,
            width=6,
            opens="skipvision-service",
        ),
        lines(
            "Images a second, by workload",
            "Images that the model saw: jobs (batch) and the service (online).",
            Query(Of(metrics.IMAGES, outcome="ok").per_second("workload"), "{{workload}}"),
            unit="suffix:images/s",
            width=12,
        ),
        lines(
            "Errors a second, by stage",
            "Rows and requests that ended as an error: what was asked, getting an image, reading it, answering, "
            "finding room. Lines that rise together point at one cause behind them.",
            Query(Of(metrics.ERRORS).per_second("stage"), "{{stage}}"),
            unit="suffix:errors/s",
            width=12,
        ),
    ],
)

NUMBERS = Row(
    title="The numbers themselves",
    panels=[
        big(
            "Date of the price list",
            "All money here is counted with these prices. An old list means old prices.",
            PRICE_LIST,
            unit="dateTimeAsIso",
            width=6,
            nothing="no price list",
            opens="skipvision-cost",
        ),
        big(
            "Last report",
            "How long ago a process last told its numbers. Where it grows while work is under way, all other panels "
            "show the past.",
            Query(f"time() - {Of(metrics.HUB_LAST_REPORT).now()}"),
            unit="s",
            steps=((None, "green"), (60, "orange"), (300, "red")),
        ),
        big(
            "Processes that report",
            "Drivers of jobs, doors and replicas that have reported lately.",
            Query(Of(metrics.HUB_SOURCES).now()),
            unit="short",
        ),
        big(
            "Version",
            "The version of skipvision that publishes these numbers. Two: an upgrade is under way, or stuck.",
            Query(Of(metrics.BUILD).known("version"), "{{version}}"),
            unit="short",
            names=True,
        ),
        big(
            "Reports",
            "Reports that came in, in the time shown. Repeated ones were known already and not counted again: senders "
            "who are in doubt send twice.",
            Query(Of(metrics.HUB_REPORTS).in_range("result"), "{{result}}"),
            unit="short",
            whole=True,
            width=6,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-overview",
    title="skipvision: overview",
    description="What skipping visual tokens saved and what it changed, the work that was done, and its errors.",
    rows=[SAVINGS, WORK, NUMBERS],
)
