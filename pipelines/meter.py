"""A running job in numbers: what each committed shard adds to the metrics, and the report at the end.

The driver records, from the statistics that stand in each shard's file. They are told by shard, so that a hub which has
heard of a shard does not count it again: not when the driver was killed before it could tell, and not when the job goes
on elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.model import ChosenModel
from pipelines.observed import Observations, record
from pipelines.plan import JobPlan
from pipelines.statistics import Comparison, DeviceSeconds, JobReport, ShardStatistics, add_devices, add_up
from skipvision import metrics
from skipvision.engine.driver import EngineWork
from skipvision.engine.recording import record_work
from skipvision.families.checkpoint import short_name
from skipvision.metrics import Registry, error_stage
from skipvision.metrics.feed import Numbers
from skipvision.prices import PriceList, Till, money_of, publish_prices


class JobMeter:
    """Counts shards as they are committed, from the start of an attempt.

    Args:
        name: what dashboards call the job.
        prices: None: money is not counted.
    """

    def __init__(
        self, plan: JobPlan, model: ChosenModel, numbers: Numbers, *, name: str, prices: PriceList | None = None
    ) -> None:
        self._plan, self._model, self._numbers, self._prices = plan, model, numbers, prices
        work = {"workload": "batch", "model": short_name(model.name), "skip": plan.skip}
        self._shown = numbers.registry.within(job_name=name, **work)
        self._tally = Registry()
        self._entering = self._tally.within(**work)
        self._started = time.perf_counter()
        self._shards: dict[int, ShardStatistics] = {}
        self._comparison = Comparison()
        self._without_baseline: list[ShardStatistics] = []
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
        """Count what earlier attempts committed, and tell what they could not tell any more."""
        Till(self._shown, self._prices).open()
        publish_prices(self._numbers.registry, self._prices)
        self._shown.set(metrics.RETENTION_TARGET, self._model.retained_share)
        self._shown.set(metrics.JOB_RUNNING, 1)
        self._shown.set(metrics.JOB_LAST_COMMIT, time.time())
        for shard in committed:
            self._count(shard)
        self._resumed_shards, self._resumed_rows = len(self._shards), self.rows
        self._timeline.append((0.0, self.rows))
        for number in self._numbers.unknown(self._source, self._shards):
            self._tell(self._shards[number])
        self._show_progress()

    def record(self, shard: ShardStatistics, observations: Observations) -> None:
        """Count a shard that has just been committed."""
        self._count(shard)
        self._timeline.append((self.seconds, self.rows))
        self._tell(shard, observations)
        self._shown.set(metrics.JOB_LAST_COMMIT, time.time())
        self._show_progress()

    def end(self, *, well: bool) -> None:
        """The attempt is over; `well`: and the job done."""
        self._shown.set(metrics.JOB_RUNNING, 0)
        if well:
            self._shown.set(metrics.JOB_LAST_SUCCESS, time.time())

    def report(self, lost: Sequence[DeviceSeconds] = ()) -> JobReport:
        """What the job comes to, now.

        Args:
            lost: what was held with no shard to show for it; it is counted, once.
        """
        total, seconds = add_up(self._shards.values()), self.seconds
        devices = add_devices((*total.devices, *lost))
        till = Till(self._entering, self._prices)
        for each in lost:
            till.enter(each.held(self._comparison.ratio))
        self._numbers.tell(f"{self._source} lost", 0, self._tally.take())
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
            devices=devices,
            comparison=total.comparison,
            wall_seconds=seconds,
            rows_per_second=(total.rows - self._resumed_rows) / seconds,
            timeline=tuple(self._timeline),
            shards=self._plan.shards,
            resumed_shards=self._resumed_shards,
            other_files=self._plan.other_files,
            model=self._model.name,
            skip=self._plan.skip,
            settings=self._plan.settings,
            money=self._money(devices, total.comparison.ratio),
        )

    def _money(self, devices: Iterable[Any], ratio: float | None) -> dict[str, Any] | None:
        if self._prices is None:
            return None
        money = money_of([each.held(ratio) for each in devices], self._prices)
        return {"prices": str(self._prices), "usd": asdict(money)}

    @property
    def _source(self) -> str:
        return f"job {self._plan.input_id}"

    def _count(self, shard: ShardStatistics) -> None:
        self._shards[shard.shard] = shard
        self.rows += shard.rows
        self._ok += shard.ok
        self._comparison += shard.comparison

    def _tell(self, shard: ShardStatistics, observations: Observations | None = None) -> None:
        self._enter(shard, observations)
        self._numbers.tell(self._source, shard.shard, self._tally.take())
        self._without_baseline.append(shard)
        if (ratio := self._comparison.ratio) is None:  # what was not measured yet is entered when it is
            return
        for each in self._without_baseline:
            self._enter_measured(each, ratio)
            self._numbers.tell(f"{self._source} measured", each.shard, self._tally.take())
        self._without_baseline.clear()

    def _enter(self, shard: ShardStatistics, observations: Observations | None) -> None:
        to, add = self._entering, self._entering.add
        for outcome, rows in (("ok", shard.ok), ("error", shard.errors)):
            add(metrics.ROWS, rows, outcome=outcome)
            add(metrics.IMAGES, rows, outcome=outcome)
        for code, rows in shard.errors_by_code.items():
            add(metrics.ERRORS, rows, stage=error_stage(code), code=code)
        for fate in metrics.VISUAL_TOKENS.labels["fate"]:
            add(metrics.VISUAL_TOKENS, getattr(shard.tokens, fate), fate=fate)
        add(metrics.SUMMARY_TOKENS, shard.tokens.summary)
        add(metrics.TEXT_TOKENS, shard.tokens.text, direction="prompt")
        add(metrics.TEXT_TOKENS, shard.tokens.output, direction="generated")
        for cost, flops, held in (
            (shard.actual, metrics.FLOPS, metrics.KV_BYTES),
            (shard.all_tokens, metrics.BASELINE_FLOPS, metrics.BASELINE_KV_BYTES),
        ):
            add(flops, cost.prefill_flops, phase="prefill", basis="modelled")
            add(flops, cost.decode_flops, phase="decode", basis="modelled")
            add(held, cost.kv_bytes, basis="modelled")
        for reason, answers in shard.finish_reasons.items():
            add(metrics.ANSWERS, answers, finish_reason=reason)
        record_work(EngineWork(shard.stage_seconds, shard.engine), to)
        till = Till(to, self._prices)
        for device in shard.devices:
            till.enter(device.held(None))
        compared = shard.comparison
        add(metrics.COMPARED_ROWS, compared.same, answer="same")
        add(metrics.COMPARED_ROWS, compared.rows - compared.same, answer="different")
        add(metrics.COMPARED_SECONDS, compared.seconds, setting="job")
        add(metrics.COMPARED_SECONDS, compared.seconds_all_tokens, setting="all_tokens")
        if observations is not None:
            record(observations, to)

    def _enter_measured(self, shard: ShardStatistics, ratio: float) -> None:
        till = Till(self._entering, self._prices)
        for device in shard.devices:
            till.enter_baseline(device.held(ratio), "measured")

    def _show_progress(self) -> None:
        waiting, answered = self._plan.rows - self.rows, self.rows - self._resumed_rows
        self._shown.set(metrics.JOB_ROWS, waiting, state="waiting")
        self._shown.set(metrics.JOB_ROWS, self._ok, state="ok")
        self._shown.set(metrics.JOB_ROWS, self.rows - self._ok, state="error")
        self._shown.set(metrics.JOB_PROGRESS, self.rows / self._plan.rows)
        self._shown.set(metrics.QUEUE_DEPTH, waiting, stage="job")
        remaining = waiting * self.seconds / answered if answered else math.nan if waiting else 0.0
        self._shown.set(metrics.JOB_REMAINING, remaining)
