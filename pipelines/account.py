"""Adds up the outcomes of a shard: rows, tokens by fate, and what they cost beside what all tokens would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.result_rows import Outcome
from pipelines.statistics import Cost, ShardStatistics, TokenCounts
from skipvision.engine import Answer
from skipvision.errors import InputError
from skipvision.method.flops import DecoderShape, decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipConfig, SkipPlan, plan_prompt


@dataclass(frozen=True, slots=True)
class Account:
    """The formulas of one loaded model."""

    shape: DecoderShape
    bytes_per_value: int
    """Of a key or value in the cache."""

    def of_shard(self, shard: int, outcomes: Sequence[Outcome], stage_seconds: Mapping[str, float]) -> ShardStatistics:
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        errors = Counter(outcome.code for outcome in outcomes if isinstance(outcome, InputError))
        return ShardStatistics(
            shard=shard,
            rows=len(outcomes),
            ok=len(answers),
            errors_by_code=dict(sorted(errors.items())),
            tokens=_count_tokens(answers),
            actual=self._cost((answer.plan, answer) for answer in answers),
            all_tokens=self._cost((all_tokens(answer.plan), answer) for answer in answers),
            stage_seconds=stage_seconds,
        )

    def _cost(self, answers: Iterable[tuple[SkipPlan, Answer]]) -> Cost:
        prefill = decode = held = 0
        for plan, answer in answers:
            prefill += prefill_flops(self.shape, plan)
            decode += decode_flops(self.shape, cached_tokens=plan.cached_tokens, output_tokens=len(answer.output_ids))
            held += kv_bytes(self.shape, plan.cached_tokens, bytes_per_value=self.bytes_per_value)
        return Cost(prefill_flops=prefill, decode_flops=decode, kv_bytes=held)


def all_tokens(plan: SkipPlan) -> SkipPlan:
    """The plan of the same prompt with nothing skipped."""
    return plan_prompt(
        SkipConfig(),
        text_tokens=plan.text_tokens,
        visual_tokens=[image.visual_tokens for image in plan.images],
    )


def _count_tokens(answers: Sequence[Answer]) -> TokenCounts:
    plans = [answer.plan for answer in answers]
    return TokenCounts(
        text=sum(plan.text_tokens for plan in plans),
        visual=sum(plan.visual_tokens for plan in plans),
        retained=sum(plan.retained_tokens for plan in plans),
        skipped=sum(plan.skipped_tokens for plan in plans),
        merged=sum(plan.merged_tokens for plan in plans),
        summary=sum(plan.summary_tokens for plan in plans),
        cached=sum(plan.cached_tokens for plan in plans),
        output=sum(len(answer.output_ids) for answer in answers),
    )
