"""The traces of a job's rows, made by the worker that has committed their shard.

Each row is a trace of its own, so that it is chosen or left out by itself and can be looked at by itself: a shard as
one trace would be kept whole or not at all, and hundreds of rows in it are too many to see one. Where rows of a shard
are chosen, the shard is a trace too, and they link to it; from there it is known who was in their company.

A row's name and its place in the input may be private; it is known by the job's name and its place in the job's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.plan import JobPlan
from pipelines.prepare import PREPARE_SECONDS, READ_SECONDS
from pipelines.result_rows import Outcome
from skipvision.errors import InputError
from skipvision.families.checkpoint import DEFAULT_MODEL

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from skipvision.tracing.otlp import Tracer

_FATES = (
    "visual_tokens", "retained_tokens", "skipped_tokens", "merged_tokens", "dropped_tokens", "summary_tokens",
    "cached_tokens",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTimes:
    """Of one shard in its worker, in nanoseconds since the epoch."""

    began: int
    answered: int
    committed: int


class RowTraces:
    """Of one worker."""

    def __init__(self, tracer: Tracer, output: str, plan: JobPlan) -> None:
        self._tracer = tracer
        self._job = PurePath(output).name
        self._model = PurePath(plan.settings["model"] or DEFAULT_MODEL).name

    def make(self, shard: int, prepared: pa.Table, outcomes: Sequence[Outcome], times: ShardTimes) -> None:
        """Trace the rows of a committed shard that are to be, and wait for a collector that answers to have them."""
        read, prepare = (prepared.column(name).to_pylist() for name in (READ_SECONDS, PREPARE_SECONDS))
        company: Span | None = None
        for number, outcome in enumerate(outcomes):
            before = {"read": read[number], "prepare": prepare[number]}
            row = self._tracer.begin("row", times.began - _nanoseconds(sum(before.values())))
            if not row.is_recording():
                continue
            company = company or self._shard(shard, outcomes, times)
            row.add_link(company.get_span_context())
            row.set_attributes({"skipvision.job": self._job, "skipvision.shard": shard, "skipvision.row": number})
            self._lay_out(row, before, outcome, times)
            row.end(times.committed)
        if company is not None:
            self._tracer.flush()

    def _shard(self, shard: int, outcomes: Sequence[Outcome], times: ShardTimes) -> Span:
        span = self._tracer.begin("shard", times.began, always=True)
        errors = sum(isinstance(outcome, InputError) for outcome in outcomes)
        span.set_attributes({
            "skipvision.job": self._job, "skipvision.shard": shard, "skipvision.rows": len(outcomes),
            "skipvision.errors": errors,
        })  # fmt: skip
        span.end(times.committed)
        return span

    def _lay_out(self, row: Span, before: dict[str, float], outcome: Outcome, times: ShardTimes) -> None:
        """Its parts. The engine's begin with the shard and lie one after the other, of which only lengths are known."""
        self._tracer.lay_out(before, row, times.began - _nanoseconds(sum(before.values())), times.began)
        if isinstance(outcome, InputError):
            self._tracer.fail(row, outcome.code)
        else:
            seconds = {
                "queue": outcome.queue_seconds,
                "encode": outcome.encode_seconds,
                "prefill": outcome.prefill_seconds,
                "decode": outcome.decode_seconds,
            }
            self._tracer.lay_out(seconds, row, times.began, times.answered)
            row.set_attributes(self._answered(outcome))
        write = (times.committed - times.answered) / 1e9
        self._tracer.lay_out({"write": write}, row, times.answered, times.committed)

    def _answered(self, answer: Any) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "skipvision",
            "gen_ai.request.model": self._model,
            "gen_ai.usage.input_tokens": answer.plan.prompt_tokens,
            "gen_ai.usage.output_tokens": len(answer.output_ids),
            "gen_ai.response.finish_reasons": [answer.finish_reason],
            "skipvision.first_token_seconds": answer.first_token_seconds,
            **{f"skipvision.{fate}": getattr(answer.plan, fate) for fate in _FATES},
        }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
