"""What answers cost a language model, by formula, beside what they would have cost with all visual tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skipvision.engine.request import Answer
from skipvision.families.family import Family
from skipvision.method.flops import DecoderShape, decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipPlan


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

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            prefill_flops=self.prefill_flops + other.prefill_flops,
            decode_flops=self.decode_flops + other.decode_flops,
            kv_bytes=self.kv_bytes + other.kv_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """Of one prompt and its answers."""

    actual: Cost
    all_tokens: Cost
    """The same with nothing skipped."""
    extra_seconds: float
    """How much longer the model's work would have taken with all tokens, modelled: prefill and decode grow as their
    operations do, everything else stays. Negative where skipping costs more."""


@dataclass(frozen=True, slots=True)
class Formulas:
    """Of one loaded model."""

    shape: DecoderShape
    bytes_per_value: int
    """Of a key or value in the cache."""

    @classmethod
    def of(cls, family: Family) -> Formulas:
        return cls(family.shape, family.dtype.itemsize)

    def spending(self, *answers: Answer) -> Spending:
        """Of answers to one prompt, which was read once."""
        first = min(answers, key=lambda answer: answer.index)
        actual, full = self._cost(first.plan, answers), self._cost(first.plan.with_all_tokens(), answers)
        reading = first.prefill_seconds * _growth(actual.prefill_flops, full.prefill_flops)
        writing = sum(answer.decode_seconds for answer in answers) * _growth(actual.decode_flops, full.decode_flops)
        return Spending(actual=actual, all_tokens=full, extra_seconds=reading + writing)

    def _cost(self, plan: SkipPlan, answers: Iterable[Answer]) -> Cost:
        decode = sum(
            decode_flops(self.shape, cached_tokens=plan.cached_tokens, output_tokens=len(answer.output_ids))
            for answer in answers
        )
        held = kv_bytes(self.shape, plan.cached_tokens, bytes_per_value=self.bytes_per_value)
        return Cost(prefill_flops=prefill_flops(self.shape, plan), decode_flops=decode, kv_bytes=held)


def _growth(actual: int, full: int) -> float:
    """By what share of itself something would be longer."""
    return full / actual - 1 if actual else 0.0
