"""Adds up the outcomes of a shard: rows, tokens by fate, and what they cost beside what all tokens would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from monitoring.devices import Device
from pipelines.result_rows import Outcome
from pipelines.statistics import Comparison, DeviceSeconds, RowSeconds, ShardStatistics, TokenCounts, add_devices
from skipvision.engine import Answer
from skipvision.engine.costs import Cost, Formulas
from skipvision.engine.driver import EngineWork
from skipvision.errors import InputError
from skipvision.prices import CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """What was done for one shard."""

    preparing: EngineWork
    """Getting images and making pixels of them."""
    engine: EngineWork
    """Since the engine was last looked at, for whichever shard."""
    comparing: EngineWork = field(default_factory=EngineWork)
    comparison: Comparison = field(default_factory=Comparison)


@dataclass(frozen=True, slots=True)
class Account:
    """Of one loaded model, on one device."""

    formulas: Formulas
    device: Device

    def of_shard(self, shard: int, outcomes: Sequence[Outcome], work: ShardWork) -> ShardStatistics:
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        errors = Counter(outcome.code for outcome in outcomes if isinstance(outcome, InputError))
        spent = [self.formulas.spending(answer) for answer in answers]
        rows_work = work.preparing + work.engine
        return ShardStatistics(
            shard=shard,
            rows=len(outcomes),
            ok=len(answers),
            errors_by_code=dict(sorted(errors.items())),
            tokens=_count_tokens(answers),
            actual=sum((each.actual for each in spent), start=Cost()),
            all_tokens=sum((each.all_tokens for each in spent), start=Cost()),
            stage_seconds=rows_work.stage_seconds,
            finish_reasons=dict(sorted(Counter(answer.finish_reason for answer in answers).items())),
            row_seconds=_row_seconds(answers),
            engine=rows_work.counts,
            devices=self._devices(work, sum(each.extra_seconds for each in spent)),
            comparison=work.comparison,
        )

    def _devices(self, work: ShardWork, extra: float) -> tuple[DeviceSeconds, ...]:
        units = self.device.units
        waited = work.engine.held_seconds + work.comparing.held_seconds
        waited -= work.engine.busy_seconds + work.comparing.busy_seconds
        of_engine = DeviceSeconds(
            device=self.device.kind,
            capacity=self.device.capacity,
            engine=work.engine.busy_seconds * units,
            compare=work.comparing.busy_seconds * units,
            idle=max(0.0, waited) * units,  # clocks of devices and hosts differ by little
            extra=extra * units,
        )
        # Tasks that prepare are not asked for their node: it is taken to be paid as the engine's is.
        of_tasks = DeviceSeconds(device=CPU, capacity=self.device.capacity, prepare=work.preparing.busy_seconds)
        return add_devices((of_engine, of_tasks))


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
