"""Skipping: what became of the visual tokens, what that left out, and what it did to the answers."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import StackingMode

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import GAIN, SPENT, Query, bars, big, lines
from monitoring.dashboards.queries import Of, ratio
from skipvision import metrics
from skipvision.metrics import Metric

tokens = Of(metrics.VISUAL_TOKENS)
retained = Of(metrics.VISUAL_TOKENS, fate="retained")
target = Of(metrics.RETENTION_TARGET)
compared = Of(metrics.COMPARED_ROWS)
changed = Of(metrics.COMPARED_ROWS, answer="different")
seconds = Of(metrics.COMPARED_SECONDS)
with_skipping = Of(metrics.COMPARED_SECONDS, setting="job")
with_all_tokens = Of(metrics.COMPARED_SECONDS, setting="all_tokens")


def left_out(actual: Metric, baseline: Metric, *by: str) -> str:
    """Share of the baseline that was not needed, in the time shown."""
    return f"1 - {ratio(Of(actual).in_range(*by), Of(baseline).in_range(*by))}"


TOKENS = Row(
    title="Visual tokens",
    panels=[
        big(
            "Retained",
            "Share of the visual tokens in the time shown that ran every block in full.",
            Query(ratio(retained.in_range(), tokens.in_range())),
            unit="percentunit",
            height=9,
        ),
        bars(
            "What became of them",
            "Visual tokens in the time shown: retained in full; skipped, so that they take part in attention alone; "
            "merged into a skipped one; dropped before the language model.",
            Query(tokens.in_range("fate"), "{{fate}}"),
            unit="short",
            whole=True,
            width=10,
        ),
        lines(
            "Visual tokens a second",
            "By fate, stacked: the whole is what the vision tower gives at full size.",
            Query(tokens.per_second("fate"), "{{fate}}"),
            unit="suffix:tokens/s",
            stacked=StackingMode.NORMAL,
            width=10,
        ),
        lines(
            "Retained, beside the target",
            "Share retained, and what the setting asks for. Far apart: the setting does not do what it says, or "
            "skipping is off.",
            Query(
                ratio(retained.per_second("model", "skip"), tokens.per_second("model", "skip")), "{{model}} {{skip}}"
            ),
            Query(target.now("model", "skip"), "{{model}} {{skip}}, target"),
            unit="percentunit",
            dashed=".*, target",
        ),
        lines(
            "Summary tokens a second",
            "Tokens that were added to the prompts to sum up others; the vision tower did not give them.",
            Query(Of(metrics.SUMMARY_TOKENS).per_second("skip"), "{{skip}}"),
            unit="suffix:tokens/s",
        ),
        lines(
            "Text tokens a second",
            "Read as prompt, and generated. Skipping leaves out no text.",
            Query(Of(metrics.TEXT_TOKENS).per_second("direction"), "{{direction}}"),
            unit="suffix:tokens/s",
        ),
    ],
)

LEFT_OUT = Row(
    title="What that left out, by formula",
    panels=[
        big(
            "Operations left out",
            "Share of the language model's operations that all visual tokens would have taken, and skipping did not. "
            "Modelled. Below 0: it took more.",
            Query(left_out(metrics.FLOPS, metrics.BASELINE_FLOPS, "basis"), "{{basis}}"),
            unit="percentunit",
            steps=GAIN,
            height=9,
        ),
        lines(
            "Operations a second",
            "Of the language model, actual and with all visual tokens. Both modelled, by the same formula.",
            Query(Of(metrics.FLOPS).per_second("basis"), SPENT),
            Query(Of(metrics.BASELINE_FLOPS).per_second("basis"), "all tokens, {{basis}}"),
            unit="flops",
            width=10,
        ),
        bars(
            "Operations left out, by phase",
            "Reading the prompt gains most; decoding gains where skipped tokens are forgotten. Modelled.",
            Query(left_out(metrics.FLOPS, metrics.BASELINE_FLOPS, "phase", "basis"), "{{phase}}, {{basis}}"),
            unit="percentunit",
            steps=GAIN,
            width=10,
        ),
        big(
            "Cache left free",
            "Share of the keys and values that all visual tokens would have held, and skipping did not. Modelled. "
            "Below 0: it held more.",
            Query(left_out(metrics.KV_BYTES, metrics.BASELINE_KV_BYTES, "basis"), "{{basis}}"),
            unit="percentunit",
            steps=GAIN,
            height=9,
        ),
        lines(
            "Keys and values a second",
            "Bytes that rows held once their prompt was read, added up over the rows of a second: actual and with all "
            "visual tokens. Both modelled.",
            Query(Of(metrics.KV_BYTES).per_second("basis"), SPENT),
            Query(Of(metrics.BASELINE_KV_BYTES).per_second("basis"), "all tokens, {{basis}}"),
            unit="binBps",
            width=20,
        ),
    ],
)

ANSWERS = Row(
    title="What it did to the answers, measured",
    panels=[
        big(
            "Answers that changed",
            "Of the rows that were also answered with all visual tokens, the share whose answer was another one.",
            Query(ratio(changed.in_range(), compared.in_range())),
            unit="percentunit",
            steps=((None, "green"), (0.1, "orange"), (0.3, "red")),
            height=7,
            nothing="not compared",
        ),
        bars(
            "Compared rows",
            "Rows in the time shown that were answered both ways. Few of them: the shares beside are uncertain.",
            Query(compared.in_range("answer"), "{{answer}}"),
            unit="short",
            whole=True,
            width=10,
            height=7,
        ),
        bars(
            "Answers that changed, by setting",
            "The same share for each model and setting: the more is skipped, the more change.",
            Query(ratio(changed.in_range("model", "skip"), compared.in_range("model", "skip")), "{{model}} {{skip}}"),
            unit="percentunit",
            steps=((None, "green"), (0.1, "orange"), (0.3, "red")),
            width=10,
            height=7,
        ),
        big(
            "Measured speed",
            "How many times as long the compared rows took with all visual tokens, on an engine that did nothing else. "
            "Below 1, in red: skipping was slower.",
            Query(ratio(with_all_tokens.in_range(), with_skipping.in_range())),
            unit="suffix:×",
            steps=((None, "red"), (1, "green")),
            height=7,
            nothing="not compared",
        ),
        bars(
            "Measured speed, by setting",
            "The same for each model and setting.",
            Query(
                ratio(with_all_tokens.in_range("model", "skip"), with_skipping.in_range("model", "skip")),
                "{{model}} {{skip}}",
            ),
            unit="suffix:×",
            steps=((None, "red"), (1, "green")),
            width=10,
            height=7,
        ),
        lines(
            "Seconds spent on comparing",
            "What the comparison itself takes of the engines, with the job's setting and with all visual tokens.",
            Query(seconds.per_second("setting"), "{{setting}}"),
            unit="suffix:s/s",
            width=10,
            height=7,
        ),
    ],
)

BOARD = Board(
    uid="skipvision-skipping",
    title="skipvision: skipping and quality",
    description="What became of visual tokens, the operations and bytes this left out, and the answers it changed.",
    rows=[TOKENS, LEFT_OUT, ANSWERS],
)
