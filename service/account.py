"""What one tenant has taken of its limits: rates, requests in work, and promises on today's budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from service.auth import TenantConfig
from service.bucket import Bucket
from service.ledger import Ledger

IN_WORK_PAUSE_SECONDS = 1.0
"""What to wait where requests in work stand in the way: nobody knows when they end."""

Code = Literal["rate_limit_exceeded", "insufficient_quota"]


class RateLimitError(Exception):
    """The tenant has asked for as much as it may; for status 429.

    `retry_after_seconds` is exact: after that the same request is admitted, if no other comes before it. Where it has
    to wait for requests in work it is a guess, and None where it can never be admitted.
    """

    def __init__(
        self, code: Code, message: str, retry_after_seconds: float | None, limit: int, remaining: int, resource: str
    ) -> None:
        self.code, self.retry_after_seconds = code, retry_after_seconds
        self.limit, self.remaining = limit, remaining
        self.resource = resource
        """`requests`, `images`, `tokens`, `concurrent requests` or `tokens per day`."""
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        own = (self.code, str(self), self.retry_after_seconds, self.limit, self.remaining, self.resource)
        return RateLimitError, own


class Account:
    """One tenant's state. `refusals` only looks; `take`, `settle` and `release` change it."""

    def __init__(self, tenant: TenantConfig, ledger: Ledger, now: int) -> None:
        self._name, self._ledger = tenant.name, ledger
        self._max_concurrent, self._tokens_per_day = tenant.max_concurrent, tenant.tokens_per_day
        rates = {
            "requests": tenant.requests_per_minute,
            "images": tenant.images_per_minute,
            "tokens": tenant.tokens_per_minute,
        }
        self.buckets = {resource: Bucket(rate, now) for resource, rate in rates.items() if rate is not None}
        self.in_flight = 0
        self._promised_tokens = 0
        """Estimates of requests that are neither settled nor ended; the ledger knows only of settled ones."""

    def refusals(self, wanted: Mapping[str, int], now: int) -> Iterator[RateLimitError]:
        """Say what stands against a request: one for each limit that does."""
        yield from self._rates(wanted, now)
        if self._tokens_per_day is not None:
            yield from self._budget(wanted["tokens"], self._tokens_per_day)
        if self._max_concurrent is not None and self.in_flight >= self._max_concurrent:
            says = f"{self._max_concurrent} requests at a time are allowed, and as many are in work"
            yield _crowded(says, self._max_concurrent, 0, "concurrent requests")

    def take(self, wanted: Mapping[str, int], now: int) -> None:
        """Let a request in against which nothing stands."""
        for resource, bucket in self.buckets.items():
            bucket.take(wanted[resource], now)
        self._promised_tokens += wanted["tokens"]
        self.in_flight += 1

    def settle(self, estimate: int, actual: int, now: int) -> None:
        """Put the tokens that a request used in the place of those that it was promised."""
        self._promised_tokens -= estimate
        if "tokens" in self.buckets:
            self.buckets["tokens"].take(actual - estimate, now)
        self._ledger.add(self._name, actual)

    def release(self) -> None:
        """Let a request out."""
        self.in_flight -= 1

    def _rates(self, wanted: Mapping[str, int], now: int) -> Iterator[RateLimitError]:
        for resource, bucket in self.buckets.items():
            amount, limit, left = wanted[resource], bucket.per_minute, bucket.remaining(now)
            if amount > limit:
                yield _too_large("rate_limit_exceeded", amount, limit, left, resource, "per minute")
            elif wait_ns := bucket.wait_ns(amount, now):
                says = f"{limit} {resource} per minute are allowed: {left} are left, {amount} asked for"
                yield _early("rate_limit_exceeded", says, wait_ns / 1e9, limit, left, resource)

    def _budget(self, tokens: int, limit: int) -> Iterator[RateLimitError]:
        unspent = max(0, limit - self._ledger.tokens_of(self._name))
        left = max(0, unspent - self._promised_tokens)
        if tokens > limit:
            yield _too_large("insufficient_quota", tokens, limit, left, "tokens per day", "")
        elif tokens > unspent or not unspent:
            says = f"{limit} tokens per day are allowed, until midnight UTC: {unspent} are left, {tokens} asked for"
            pause = self._ledger.seconds_to_midnight()
            yield _early("insufficient_quota", says, pause, limit, left, "tokens per day")
        elif tokens > left:
            says = f"of {limit} tokens per day {unspent} are left, and requests in work may need all but {left} of them"
            yield _crowded(says, limit, left, "tokens per day")


def _too_large(code: Code, amount: int, limit: int, left: int, resource: str, per: str) -> RateLimitError:
    says = (
        f"the request asks for {amount} {resource}, and at most {f'{limit} {per}'.strip()} are allowed: it can never "
        f"be admitted; make it smaller by {amount - limit}"
    )
    return RateLimitError(code, says, None, limit, left, resource)


def _early(code: Code, says: str, pause: float, limit: int, left: int, resource: str) -> RateLimitError:
    return RateLimitError(code, f"{says}; try again in {max(pause, 0.001):.3f} s", pause, limit, left, resource)


def _crowded(says: str, limit: int, left: int, resource: str) -> RateLimitError:
    message = f"{says}; try again when one of them has ended"
    return RateLimitError("rate_limit_exceeded", message, IN_WORK_PAUSE_SECONDS, limit, left, resource)
