"""A rate per minute as a bucket: full at first, emptied by requests, refilled evenly."""

from __future__ import annotations

MINUTE_NS = 60_000_000_000


class Bucket:
    """So many of something per minute, and after a pause as many at once.

    In any 60 seconds at most twice the rate is taken: what was in the bucket and what flowed in. Times are whole
    nanoseconds and the level is kept in parts of which one nanosecond brings `per_minute`, so that nothing is rounded:
    what `wait_ns` says is exact.
    """

    def __init__(self, per_minute: int, now: int) -> None:
        self.per_minute = per_minute
        self._full = self._level = per_minute * MINUTE_NS
        self._at = now

    def wait_ns(self, amount: int, now: int) -> int:
        """Until `amount` of at most `per_minute` can be taken, if nobody else takes any; 0: now."""
        missing = amount * MINUTE_NS - self._refilled(now)
        return max(0, -(-missing // self.per_minute))

    def remaining(self, now: int) -> int:
        """Whole ones that can be taken now."""
        return max(0, self._refilled(now) // MINUTE_NS)

    def take(self, amount: int, now: int) -> None:
        """Take `amount`; more than there is becomes a debt, and less than nothing is given back."""
        self._level = min(self._full, self._refilled(now) - amount * MINUTE_NS)

    def _refilled(self, now: int) -> int:
        self._level = min(self._full, self._level + (now - self._at) * self.per_minute)
        self._at = now
        return self._level
