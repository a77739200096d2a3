"""What a shard, and then a job, adds up to: rows by outcome, tokens by fate, operations, bytes and seconds.

A shard's numbers are written into the footer of its file, so that a job that was killed and went on reports all of
its rows, not only those of its last attempt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, TypeVar

from skipvision.engine import EngineCounts
from skipvision.engine.costs import Cost
from skipvision.prices import Held


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of answered rows by fate, added up."""

    text: int = 0
    visual: int = 0
    """What the vision encoder makes at full size: retained, skipped, merged and dropped tokens together."""
    retained: int = 0
    skipped: int = 0
    merged: int = 0
    dropped: int = 0
    summary: int = 0
    cached: int = 0
    output: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSeconds:
    """Seconds of answered rows, added up; `Answer` says what each of them is."""

    total: float = 0.0
    queue: float = 0.0
    encode: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    first_token: float = 0.0
    between_tokens: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSeconds:
    """Seconds for which one kind of device was held, times how many of them there were."""

    device: str = "cpu"
    """`cpu`, cores; or a kind of GPU, as Ray calls it, in lower case."""
    capacity: str = "on_demand"
    """Or `spot`."""
    engine: float = 0.0
    """The model's work on the job's rows."""
    prepare: float = 0.0
    """Getting images and making pixels of them."""
    compare: float = 0.0
    """The model's work on rows that were answered again, to measure what skipping saves."""
    idle: float = 0.0
    """The model waiting, and being loaded."""
    lost: float = 0.0
    """Held with no committed shard to show for it: by engines that were killed, and from the last shard to the end; see
    `held`."""
    extra: float = 0.0
    """How much more `engine` would have been with all visual tokens, by formula."""

    def held(self, all_tokens_ratio: float | None) -> Held:
        """As it is counted.

        Args:
            all_tokens_ratio: how many times as long rows took with all tokens, measured. None: it was not.
        """
        rest = self.idle + self.lost + self.prepare
        return Held(
            device=self.device,
            capacity=self.capacity,
            busy=self.engine + self.prepare + self.compare,
            idle=self.idle + self.lost,
            modelled=rest + self.engine + self.extra,
            measured=None if all_tokens_ratio is None else rest + self.engine * all_tokens_ratio,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Rows that an engine which did nothing else answered twice, with the job's setting and with all visual tokens."""

    rows: int = 0
    same: int = 0
    """Whose answers were the same text."""
    seconds: float = 0.0
    """With the job's setting; and with all tokens:"""
    seconds_all_tokens: float = 0.0

    def __add__(self, other: Comparison) -> Comparison:
        return _sum(Comparison, (self, other))

    @property
    def ratio(self) -> float | None:
        """How many times as long rows took with all tokens. None: no row was compared."""
        return self.seconds_all_tokens / self.seconds if self.seconds else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Rows and what they took."""

    rows: int
    ok: int
    errors_by_code: Mapping[str, int]
    tokens: TokenCounts
    actual: Cost
    all_tokens: Cost
    """What the same rows, with the same answers, would have cost with nothing skipped."""
    stage_seconds: Mapping[str, float]
    """Stage of the metrics catalogue -> seconds, added up over tasks and workers."""
    finish_reasons: Mapping[str, int]
    """Answered rows by how their answer ended."""
    row_seconds: RowSeconds
    engine: EngineCounts
    """What the engines did, added up over workers."""
    devices: tuple[DeviceSeconds, ...] = ()
    """One of each kind and capacity."""
    comparison: Comparison = Comparison()

    @property
    def errors(self) -> int:
        return sum(self.errors_by_code.values())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        parts = {
            "tokens": TokenCounts(**values["tokens"]),
            "actual": Cost(**values["actual"]),
            "all_tokens": Cost(**values["all_tokens"]),
            "row_seconds": RowSeconds(**values["row_seconds"]),
            "engine": EngineCounts(**values["engine"]),
            # Shards of earlier versions did not say.
            "devices": tuple(DeviceSeconds(**each) for each in values.get("devices", ())),
            "comparison": Comparison(**values.get("comparison", {})),
        }
        return cls(**{**values, **parts})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls.from_dict(json.loads(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStatistics(Totals):
    """The numbers of one committed shard."""

    shard: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport(Totals):
    """What a job did. Totals are of the whole job; seconds, rows/s and the timeline of its last attempt."""

    wall_seconds: float
    rows_per_second: float
    """Rows that this attempt committed by its wall seconds."""
    timeline: tuple[tuple[float, int], ...]
    """(seconds since the attempt began, rows of the job committed), in order."""
    shards: int
    resumed_shards: int
    """Shards that an earlier attempt had committed."""
    other_files: int
    """Files in the input folder that are none of its images, or none of its tables."""
    model: str
    skip: str
    """The setting that was used, in the words of `SkipConfig.describe`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for: every setting that decides answers."""
    money: Mapping[str, Any] | None = None
    """`prices` names the price list with its date; `usd` is what was `spent`, and what all tokens would have cost,
    `modelled` and `measured`, the latter None where no row was compared. None: no price list was named."""
    already_done: bool = False
    """The job had been finished before; nothing was done and nothing changed."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        timeline = tuple((seconds, rows) for seconds, rows in values["timeline"])
        # Named in full: a class with slots is made anew, and a bare super() would still mean the first one.
        return super(JobReport, cls).from_dict({**values, "timeline": timeline})


def add_up(shards: Iterable[Totals]) -> Totals:
    """Add up shards; the sum of none is all zeros."""
    shards = tuple(shards)
    errors: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for shard in shards:
        errors.update(shard.errors_by_code)
        reasons.update(shard.finish_reasons)
        for stage, spent in shard.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return Totals(
        rows=sum(shard.rows for shard in shards),
        ok=sum(shard.ok for shard in shards),
        errors_by_code=dict(sorted(errors.items())),
        tokens=_sum(TokenCounts, (shard.tokens for shard in shards)),
        actual=_sum(Cost, (shard.actual for shard in shards)),
        all_tokens=_sum(Cost, (shard.all_tokens for shard in shards)),
        stage_seconds=dict(sorted(seconds.items())),
        finish_reasons=dict(sorted(reasons.items())),
        row_seconds=_sum(RowSeconds, (shard.row_seconds for shard in shards)),
        engine=sum((shard.engine for shard in shards), start=EngineCounts()),
        devices=add_devices(device for shard in shards for device in shard.devices),
        comparison=sum((shard.comparison for shard in shards), start=Comparison()),
    )


def add_devices(devices: Iterable[DeviceSeconds]) -> tuple[DeviceSeconds, ...]:
    """One of each kind and capacity."""
    found: dict[tuple[str, str], DeviceSeconds] = {}
    for each in devices:
        before = found.get((each.device, each.capacity))
        found[each.device, each.capacity] = each if before is None else _added(before, each)
    return tuple(found[kind] for kind in sorted(found))


def _added(one: DeviceSeconds, other: DeviceSeconds) -> DeviceSeconds:
    seconds = {name: getattr(one, name) + getattr(other, name) for name in _SECONDS}
    return DeviceSeconds(device=one.device, capacity=one.capacity, **seconds)


_SECONDS = tuple(each.name for each in fields(DeviceSeconds) if each.name not in {"device", "capacity"})

Counts = TypeVar("Counts", TokenCounts, Cost, RowSeconds, Comparison)


def _sum(kind: type[Counts], values: Iterable[Counts]) -> Counts:
    values = tuple(values)
    return kind(**{f.name: sum(getattr(value, f.name) for value in values) for f in fields(kind)})
