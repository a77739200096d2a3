"""The engines: how full they are, what they do over again, and where a row's time goes."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import StackingMode

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import Query, bars, big, lines
from monitoring.dashboards.queries import Of, ratio
from monitoring.dashboards.service import percentiles
from skipvision import metrics
from skipvision.metrics import Metric

prompt = Of(metrics.TEXT_TOKENS, direction="prompt")


def part(metric: Metric, **where: str) -> str:
    """Share of what a counter counts that has one label's value, now."""
    return ratio(Of(metric, **where).per_second(), Of(metric).per_second())


def part_in_range(metric: Metric, **where: str) -> str:
    return ratio(Of(metric, **where).in_range(), Of(metric).in_range())


FULL = Row(
    title="How full the engines are",
    panels=[
        big(
            "Batch used",
            "Share of the places in the engines' steps that a request was read in. Low while rows wait: something else "
            "holds the engines up, such as pages or images that are not ready.",
            Query(part(metrics.BATCH_SLOTS, state="used"), "used"),
            unit="percentunit",
            trend=True,
            width=6,
        ),
        big(
            "Cache held",
            "Share of the pages for keys and values that a request held. Near 100%: requests wait for pages, or give "
            "theirs up.",
            Query(part(metrics.CACHE_PAGES, state="held"), "held"),
            unit="percentunit",
            steps=((None, "green"), (0.9, "orange"), (0.98, "red")),
            trend=True,
            width=6,
        ),
        big(
            "Images at hand",
            "Share of the images in the time shown whose visual tokens were kept from an earlier request.",
            Query(part_in_range(metrics.VISION_CACHE_LOOKUPS, result="hit")),
            unit="percentunit",
            width=6,
        ),
        big(
            "Preemptions",
            "How often, in the time shown, a request gave its pages to an older one and was read again later. Work "
            "done twice.",
            Query(Of(metrics.PREEMPTIONS).in_range()),
            unit="short",
            whole=True,
            steps=((None, "green"), (1, "orange"), (100, "red")),
            width=6,
        ),
        lines(
            "Batch used, by model",
            "Share of the places in the steps that a request was read in.",
            Query(
                ratio(
                    Of(metrics.BATCH_SLOTS, state="used").per_second("model"),
                    Of(metrics.BATCH_SLOTS).per_second("model"),
                ),
                "{{model}}",
            ),
            unit="percentunit",
            high=1,
        ),
        lines(
            "Steps a second",
            "Forward passes of the decoder, each for all running requests.",
            Query(Of(metrics.ENGINE_STEPS).per_second("model"), "{{model}}"),
            unit="suffix:steps/s",
        ),
        lines(
            "Preemptions a second",
            "Requests that gave up their pages. More than now and then: fewer requests at a time, or a larger cache, "
            "would do more.",
            Query(Of(metrics.PREEMPTIONS).per_second("model"), "{{model}}"),
            unit="suffix:requests/s",
        ),
        lines(
            "Prompt tokens read and shared",
            "Text tokens of prompts, and prompt tokens that were not read because a request beside them began with the "
            "same.",
            Query(prompt.per_second(), "text of prompts"),
            Query(Of(metrics.SHARED_PROMPT_TOKENS).per_second(), "shared"),
            unit="suffix:tokens/s",
            width=12,
        ),
        lines(
            "Images at hand and not",
            "Images that were about to be read, by whether their visual tokens were at hand.",
            Query(Of(metrics.VISION_CACHE_LOOKUPS).per_second("result"), "{{result}}"),
            unit="suffix:images/s",
            width=12,
        ),
    ],
)

WAITING = Row(
    title="What waits",
    panels=[
        lines(
            "Rows and requests that wait",
            "In engines' lines, by model.",
            Query(Of(metrics.QUEUE_DEPTH, stage="engine").now("model"), "{{model}}"),
            unit="short",
        ),
        lines(
            "The one that waits longest",
            "How long it has waited in an engine's line; 0: nobody waits. A line that climbs steadily is an engine "
            "that has stopped.",
            Query(Of(metrics.QUEUE_OLDEST).now("model"), "{{model}}"),
            unit="s",
            steps=((None, "green"), (60, "red")),
        ),
        lines(
            "Seconds in the line",
            "From the moment the engine was given a row to the step that began to read it.",
            *percentiles(metrics.QUEUE_SECONDS),
            unit="s",
        ),
    ],
)

TIME = Row(
    title="Where a row's time goes",
    panels=[
        lines(
            "Seconds of a row",
            "From the moment the engine was given a row to its last token, the line included.",
            *percentiles(metrics.ROW_SECONDS),
            unit="s",
        ),
        lines(
            "Work on a row, by stage",
            "A row's mean share of the model's work: the vision side, reading the prompt, decoding. What skipping "
            "saves shows in prefill and decode.",
            Query(Of(metrics.WORK_SECONDS).mean("stage"), "{{stage}}"),
            unit="s",
        ),
        lines(
            "Work on the dearest rows",
            "The share of the model's work that nine rows in ten stay below.",
            Query(Of(metrics.WORK_SECONDS).percentile(0.9, "stage"), "{{stage}}, p90"),
            unit="s",
        ),
        lines(
            "Seconds of all stages",
            "Time spent in each stage in a second, over all tasks, workers, doors and replicas, stacked: 3 is three "
            "of them at work.",
            Query(Of(metrics.STAGE_SECONDS).per_second("stage"), "{{stage}}"),
            unit="suffix:s/s",
            stacked=StackingMode.NORMAL,
            width=12,
        ),
        bars(
            "Seconds by stage",
            "The same added up over the time shown.",
            Query(Of(metrics.STAGE_SECONDS).in_range("stage"), "{{stage}}"),
            unit="s",
            width=12,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-engine",
    title="skipvision: engine",
    description="How full batches and caches are, what waits and for how long, and where the time of a row goes.",
    rows=[FULL, WAITING, TIME],
    hours=3,
)
