"""How many replicas a model should have: enough for the tokens that are in flight.

Requests differ a hundredfold in what they take, so they are not counted; what each replica reports is the tokens of the
questions it has, prompts and what may be answered. Of those that wait in a door, since no replica has room or there is
none, only the number is known: they count as much as the ones that are being answered do on average.
"""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingContext

SIGNAL = "tokens_in_flight"
UNKNOWN_TOKENS = 1024
"""For a request of which nothing is known, where no other is being answered."""


class TokensInFlight:
    """A policy of Ray Serve, which applies delays and the bounds of replicas to what it says."""

    def __init__(self, target_tokens: int) -> None:
        self._target = target_tokens

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The replicas that there should be, and nothing to be remembered."""
        reported = (context.aggregated_metrics or {}).get(SIGNAL, {})
        return replicas_for(
            tokens=sum(reported.values()),
            running=context.total_running_requests,
            queued=context.total_queued_requests,
            target=self._target,
        ), {}


def replicas_for(*, tokens: float, running: float, queued: float, target: int) -> int:
    """Replicas for so much work; at least one where there is any."""
    mean = tokens / running if running >= 1 and tokens else UNKNOWN_TOKENS
    work = tokens + queued * mean
    return max(math.ceil(work / target), 1 if running + queued > 0 or tokens else 0)
