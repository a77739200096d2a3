"""What is observed of each answered row: the histograms of a job, and what of an answer goes into them.

Workers send the values with each shard, and the driver records them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from skipvision import metrics
from skipvision.engine import Answer
from skipvision.metrics import Metric, Recorder

Observations = Mapping[str, Sequence[float]]
"""Name in `OBSERVED` -> values."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One series of a histogram."""

    metric: Metric
    values_of: Callable[[Answer], Sequence[float]]
    labels: Mapping[str, str] = field(default_factory=dict)


OBSERVED: Mapping[str, Observed] = {
    "seconds": Observed(metrics.ROW_SECONDS, lambda answer: (answer.seconds,)),
    "queue_seconds": Observed(metrics.QUEUE_SECONDS, lambda answer: (answer.queue_seconds,)),
    "encode_seconds": Observed(metrics.WORK_SECONDS, lambda answer: (answer.encode_seconds,), {"stage": "encode"}),
    "prefill_seconds": Observed(metrics.WORK_SECONDS, lambda answer: (answer.prefill_seconds,), {"stage": "prefill"}),
    "decode_seconds": Observed(metrics.WORK_SECONDS, lambda answer: (answer.decode_seconds,), {"stage": "decode"}),
    "first_token_seconds": Observed(metrics.FIRST_TOKEN_SECONDS, lambda answer: (answer.first_token_seconds,)),
    "gap_seconds": Observed(metrics.TOKEN_GAP_SECONDS, lambda answer: answer.gap_seconds),
}


def observe(answers: Iterable[Answer]) -> Observations:
    """The values of all series, row after row."""
    answers = tuple(answers)
    return {name: [x for answer in answers for x in each.values_of(answer)] for name, each in OBSERVED.items()}


def record(observations: Observations, to: Recorder) -> None:
    """Count values in their histograms."""
    for name, each in OBSERVED.items():
        to.observe(each.metric, *observations[name], **each.labels)
