"""Money: what was spent and on what, beside what all tokens would have cost, what lay idle, and who caused it."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import StackingMode

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.overview import COST_PER_1000_IMAGES, PRICE_LIST, spent_beside_all_tokens
from monitoring.dashboards.panels import GAIN, SPENT, Column, Query, bars, big, grid, lines
from monitoring.dashboards.queries import Of, ratio, saved_money, saved_share, spent_where_known
from skipvision import metrics
from skipvision.metrics import BASES

cost = Of(metrics.COST)
held = Of(metrics.DEVICE_SECONDS)
idle = Of(metrics.DEVICE_SECONDS, state="idle")
PLACE = ("cluster", "device", "capacity")
PRICES = Of(metrics.PRICE).now(*PLACE)

online_cost = Of(metrics.COST, workload="online").whatever("model", "skip").in_range()
work = Of(metrics.TENANT_WORK_SECONDS)
all_work = Of(metrics.TENANT_WORK_SECONDS).whatever("tenant")

IDLE_MONEY = f"{idle.in_range(*PLACE)} / 3600 * on ({', '.join(PLACE)}) {PRICES}"
TENANT_SHARE = f"{work.in_range('tenant')} / on () group_left () ({all_work.in_range()} > 0)"

SPENDING = Row(
    title="Spent",
    panels=[
        big(
            "Spent",
            "Device seconds in the time shown at the price list's prices, busy and idle. 0 where work names no price "
            "list.",
            Query(cost.in_range()),
            unit="currencyUSD",
            width=5,
        ),
        big(
            "Of the day's budget",
            "What was spent in the past 24 hours, as a share of what may be spent in a day. The budget is for all "
            "work: choose All everywhere.",
            Query(ratio(cost.in_range(window="1d"), Of(metrics.BUDGET).now())),
            unit="percentunit",
            steps=((None, "green"), (0.8, "orange"), (1, "red")),
            width=5,
            nothing="no budget",
        ),
        big(
            "Cost of 1,000 images",
            "Dollars spent in the time shown for each thousand images that the model saw. Idle time counts.",
            Query(COST_PER_1000_IMAGES),
            unit="currencyUSD",
            width=5,
        ),
        big(
            "Idle money",
            "What the seconds that devices were held and not worked on come to, at today's prices.",
            Query(f"sum({IDLE_MONEY})"),
            unit="currencyUSD",
            steps=((None, "orange"),),
            width=5,
        ),
        big(
            "Date of the price list",
            "All money here is counted with these prices.",
            PRICE_LIST,
            unit="dateTimeAsIso",
            nothing="no price list",
        ),
        lines(
            "Spent an hour",
            "By kind of device and capacity, stacked.",
            Query(f"3600 * {cost.per_second('device', 'capacity')}", "{{device}}, {{capacity}}"),
            unit="currencyUSD",
            stacked=StackingMode.NORMAL,
        ),
        bars(
            "Spent, by device",
            "Dollars in the time shown, by kind of device and capacity.",
            Query(cost.in_range("device", "capacity"), "{{device}}, {{capacity}}"),
            unit="currencyUSD",
        ),
        lines(
            "The past 24 hours, beside the budget",
            "What was spent in the 24 hours before each moment, and what may be spent in a day.",
            Query(cost.in_range(window="1d"), "past 24 hours"),
            Query(Of(metrics.BUDGET).now(), "budget of a day"),
            unit="currencyUSD",
        ),
    ],
)

SAVED = Row(
    title="Beside what all tokens would have cost",
    panels=[
        big(
            "Money saved",
            "What all visual tokens would have cost, less what was spent, in the time shown, by basis. Red and below "
            "0: skipping cost more than it saved.",
            *(Query(saved_money(basis), "{{basis}}") for basis in BASES),
            unit="currencyUSD",
            steps=GAIN,
            width=8,
            height=7,
            nothing="not measured",
        ),
        *(
            bars(
                f"Saved by each setting, {basis}",
                f"Dollars in the time shown, by model and skip setting; {basis}. Red and below 0: a loss.",
                Query(saved_money(basis, "model", "skip"), "{{model}} {{skip}}, {{basis}}"),
                unit="currencyUSD",
                steps=GAIN,
                height=7,
            )
            for basis in BASES
        ),
        *spent_beside_all_tokens(),
        bars(
            "Share of the cost saved, by workload",
            "Of what all visual tokens would have cost, measured before modelled. Red and below 0: a loss.",
            *(Query(saved_share(basis, "workload"), "{{workload}}, {{basis}}") for basis in BASES),
            unit="percentunit",
            steps=GAIN,
        ),
    ],
)

DEVICES = Row(
    title="Devices",
    panels=[
        lines(
            "Devices held, busy and idle",
            "GPUs and processor cores that were held, by whether they were worked on, stacked: device seconds in a "
            "second.",
            Query(held.per_second("state"), "{{state}}"),
            unit="short",
            stacked=StackingMode.NORMAL,
            width=12,
        ),
        lines(
            "Idle share, by device",
            "Of the seconds that devices were held. GPUs that idle while rows wait are the dearest thing here.",
            Query(
                ratio(idle.per_second("device", "capacity"), held.per_second("device", "capacity")),
                "{{device}}, {{capacity}}",
            ),
            unit="percentunit",
            high=1,
            width=12,
        ),
        *(
            lines(
                f"Devices held and all tokens, {basis}",
                "GPUs and processor cores that were held, and that all visual tokens would have held, on work whose "
                f"baseline is {basis}.",
                Query(spent_where_known(metrics.DEVICE_SECONDS, metrics.BASELINE_DEVICE_SECONDS, basis), SPENT),
                Query(
                    f"{Of(metrics.BASELINE_DEVICE_SECONDS, basis=basis).per_second('basis')} > 0",
                    "all tokens, {{basis}}",
                ),
                unit="short",
                width=12,
            )
            for basis in BASES
        ),
        bars(
            "Idle money, by device",
            "Seconds that were held and not worked on in the time shown, at today's prices.",
            Query(f"sum by (device, capacity) ({IDLE_MONEY})", "{{device}}, {{capacity}}"),
            unit="currencyUSD",
            steps=((None, "orange"),),
            height=7,
        ),
        bars(
            "Online cost, by tenant",
            "What the service cost in the time shown, of all models, split by the measured work that each tenant's "
            "answered requests had. Idle time is split with it.",
            Query(f"{TENANT_SHARE} * on () group_left () {online_cost}", "{{tenant}}"),
            unit="currencyUSD",
            height=7,
        ),
        grid(
            "Prices",
            "What one GPU or one processor core costs, by the price list.",
            Column(name="Dollars an hour", expr=Of(metrics.PRICE).now("device", "capacity"), unit="currencyUSD"),
            labels={"device": "Device", "capacity": "Capacity"},
            width=8,
            height=7,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-cost",
    title="skipvision: cost",
    description="What was spent, on which devices and for whom, what skipping saved of it, and what lay idle.",
    rows=[SPENDING, SAVED, DEVICES],
    hours=24,
)
