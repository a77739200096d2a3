"""A running job in numbers: what each committed shard adds to the metrics, and the report at the end.

The driver records, from the statistics that workers send with each shard: metrics kept inside Ray's processes are
never scraped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pipelines.model import ChosenModel
from pipelines.observed import Observations, record
from pipelines.plan import JobPlan
from pipelines.statistics import JobReport, ShardStatistics, add_up
from skipvision import metrics
from skipvision.engine import EngineCounts
from skipvision.metrics import Registry


class JobMeter:
    """Counts shards as they are committed, from the start of an attempt."""

    def __init__(self, plan: JobPlan, model: ChosenModel, registry: Registry) -> None:
        self._plan, self._model, self._registry = plan, model, registry
        self._started = time.perf_counter()
        self._shards: dict[int, ShardStatistics] = {}
        self._timeline: list[tuple[float, int]] = []
        self._resumed_shards = self._resumed_rows = 0
        self.rows = 0
        """Committed, by this attempt and those before."""
        self._ok = 0

    @property
    def shards(self) -> Iterable[ShardStatistics]:
        return self._shards.values()

    def missing(self) -> list[int]:
        """Shards that are not committed."""
        return [shard for shard in range(self._plan.shards) if shard not in self._shards]

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def take_over(self, committed: Iterable[ShardStatistics]) -> None:
        """Count what earlier attempts committed."""
        for shard in committed:
            self._count(shard)
        self._resumed_shards, self._resumed_rows = len(self._shards), self.rows
        self._timeline.append((0.0, self.rows))
        self._registry.add(metrics.ROWS, self.rows, outcome="resumed")
        self._show_progress()

    def record(self, shard: ShardStatistics, observations: Observations) -> None:
        """Count a shard that has just been committed."""
        self._count(shard)
        self._timeline.append((self.seconds, self.rows))
        self._publish(shard)
        record(observations, self._registry)
        self._show_progress()

    def report(self) -> JobReport:
        """What the job comes to, now."""
        total, seconds = add_up(self._shards.values()), self.seconds
        return JobReport(
            rows=total.rows,
            ok=total.ok,
            errors_by_code=total.errors_by_code,
            tokens=total.tokens,
            actual=total.actual,
            all_tokens=total.all_tokens,
            stage_seconds=total.stage_seconds,
            finish_reasons=total.finish_reasons,
            row_seconds=total.row_seconds,
            engine=total.engine,
            wall_seconds=seconds,
            rows_per_second=(total.rows - self._resumed_rows) / seconds,
            timeline=tuple(self._timeline),
            shards=self._plan.shards,
            resumed_shards=self._resumed_shards,
            other_files=self._plan.other_files,
            model=self._model.name,
            skip=self._plan.skip,
            settings=self._plan.settings,
        )

    def _count(self, shard: ShardStatistics) -> None:
        self._shards[shard.shard] = shard
        self.rows += shard.rows
        self._ok += shard.ok

    def _publish(self, shard: ShardStatistics) -> None:
        add = self._registry.add
        add(metrics.ROWS, shard.ok, outcome="ok")
        add(metrics.ROWS, shard.errors, outcome="error")
        add(metrics.IMAGES, shard.ok, outcome="ok")
        add(metrics.IMAGES, shard.errors, outcome="error")
        for code, rows in shard.errors_by_code.items():
            add(metrics.ERRORS, rows, code=code)
        for fate in ("retained", "skipped", "merged", "dropped"):
            add(metrics.VISUAL_TOKENS, getattr(shard.tokens, fate), fate=fate)
        add(metrics.SUMMARY_TOKENS, shard.tokens.summary)
        add(metrics.TEXT_TOKENS, shard.tokens.text, direction="prompt")
        add(metrics.TEXT_TOKENS, shard.tokens.output, direction="generated")
        for cost, flops, held in (
            (shard.actual, metrics.FLOPS, metrics.KV_BYTES),
            (shard.all_tokens, metrics.BASELINE_FLOPS, metrics.BASELINE_KV_BYTES),
        ):
            add(flops, cost.prefill_flops, phase="prefill")
            add(flops, cost.decode_flops, phase="decode")
            add(held, cost.kv_bytes)
        for stage, seconds in shard.stage_seconds.items():
            add(metrics.STAGE_SECONDS, seconds, stage=stage)
        for reason, answers in shard.finish_reasons.items():
            add(metrics.ANSWERS, answers, finish_reason=reason)
        self._publish_engine(shard.engine)

    def _publish_engine(self, engine: EngineCounts) -> None:
        add = self._registry.add
        add(metrics.ENGINE_STEPS, engine.steps)
        add(metrics.BATCH_SLOTS, engine.slots_used, state="used")
        add(metrics.BATCH_SLOTS, engine.slots - engine.slots_used, state="empty")
        add(metrics.CACHE_PAGES, engine.pages_held, state="held")
        add(metrics.CACHE_PAGES, engine.pages - engine.pages_held, state="free")
        add(metrics.PREEMPTIONS, engine.preemptions)
        add(metrics.SHARED_PROMPT_TOKENS, engine.shared_prompt_tokens)
        add(metrics.VISION_CACHE_LOOKUPS, engine.vision_cache_hits, result="hit")
        add(metrics.VISION_CACHE_LOOKUPS, engine.vision_cache_misses, result="miss")

    def _show_progress(self) -> None:
        self._registry.set(metrics.JOB_ROWS, self._plan.rows - self.rows, state="waiting")
        self._registry.set(metrics.JOB_ROWS, self._ok, state="ok")
        self._registry.set(metrics.JOB_ROWS, self.rows - self._ok, state="error")
        self._registry.set(metrics.JOB_PROGRESS, self.rows / self._plan.rows)
