"""Adds up the outcomes of a shard: rows, tokens by fate, and what they cost beside what all tokens would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.result_rows import Outcome
from pipelines.statistics import Cost, RowSeconds, ShardStatistics, TokenCounts
from skipvision.engine import Answer
from skipvision.engine.driver import EngineWork
from skipvision.errors import InputError
from skipvision.method.flops import DecoderShape, decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipPlan


@dataclass(frozen=True, slots=True)
class Account:
    """The formulas of one loaded model."""

    shape: DecoderShape
    bytes_per_value: int
    """Of a key or value in the cache."""

    def of_shard(self, shard: int, outcomes: Sequence[Outcome], work: EngineWork) -> ShardStatistics:
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        errors = Counter(outcome.code for outcome in outcomes if isinstance(outcome, InputError))
        return ShardStatistics(
            shard=shard,
            rows=len(outcomes),
            ok=len(answers),
            errors_by_code=dict(sorted(errors.items())),
            tokens=_count_tokens(answers),
            actual=self._cost((answer.plan, answer) for answer in answers),
            all_tokens=self._cost((answer.plan.with_all_tokens(), answer) for answer in answers),
            stage_seconds=work.stage_seconds,
            finish_reasons=dict(sorted(Counter(answer.finish_reason for answer in answers).items())),
            row_seconds=_row_seconds(answers),
            engine=work.counts,
        )

    def _cost(self, answers: Iterable[tuple[SkipPlan, Answer]]) -> Cost:
        prefill = decode = held = 0
        for plan, answer in answers:
            prefill += prefill_flops(self.shape, plan)
            decode += decode_flops(self.shape, cached_tokens=plan.cached_tokens, output_tokens=len(answer.output_ids))
            held += kv_bytes(self.shape, plan.cached_tokens, bytes_per_value=self.bytes_per_value)
        return Cost(prefill_flops=prefill, decode_flops=decode, kv_bytes=held)


def _count_tokens(answers: Sequence[Answer]) -> TokenCounts:
    plans = [answer.plan for answer in answers]
    return TokenCounts(
        text=sum(plan.text_tokens for plan in plans),
        visual=sum(plan.visual_tokens for plan in plans),
        retained=sum(plan.retained_tokens for plan in plans),
        skipped=sum(plan.skipped_tokens for plan in plans),
        merged=sum(plan.merged_tokens for plan in plans),
        dropped=sum(plan.dropped_tokens for plan in plans),
        summary=sum(plan.summary_tokens for plan in plans),
        cached=sum(plan.cached_tokens for plan in plans),
        output=sum(len(answer.output_ids) for answer in answers),
    )


def _row_seconds(answers: Sequence[Answer]) -> RowSeconds:
    return RowSeconds(
        total=sum(answer.seconds for answer in answers),
        queue=sum(answer.queue_seconds for answer in answers),
        encode=sum(answer.encode_seconds for answer in answers),
        prefill=sum(answer.prefill_seconds for answer in answers),
        decode=sum(answer.decode_seconds for answer in answers),
        first_token=sum(answer.first_token_seconds for answer in answers),
        between_tokens=sum(sum(answer.gap_seconds) for answer in answers),
    )
