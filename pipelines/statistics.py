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
class Cost:
    """What the language model's work on answered rows comes to, modelled by formula from their plans."""

    prefill_flops: int = 0
    """Floating-point operations, causal count."""
    decode_flops: int = 0
    kv_bytes: int = 0
    """Keys and values held once each prompt was read, added up over rows."""

    @property
    def flops(self) -> int:
        return self.prefill_flops + self.decode_flops


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
    )


Counts = TypeVar("Counts", TokenCounts, Cost, RowSeconds)


def _sum(kind: type[Counts], values: Iterable[Counts]) -> Counts:
    values = tuple(values)
    return kind(**{f.name: sum(getattr(value, f.name) for value in values) for f in fields(kind)})
