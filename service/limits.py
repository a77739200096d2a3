"""How much each tenant may ask for: rates, requests at a time and a daily budget, decided before any work is done.

Nothing here waits: a request is admitted at once, or refused with the pause after which it would be. All of it belongs
to one thread, that of the event loop, and counts in one process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from service.account import Account, RateLimitError
from service.auth import TenantConfig
from service.ledger import Ledger

__all__ = ["Admission", "Limits", "RateLimitError"]


class Limits:
    """Admission for the configured tenants; nobody else has state here.

    Args:
        tenants: everyone who can ask.
        ledger: counts what is used of budgets. None: one that is forgotten with the process.
        clock: monotonic, in nanoseconds: whole numbers, so that no token is lost or invented by rounding.
        wall: seconds since the epoch, for the ledger where none is given.
    """

    def __init__(
        self,
        tenants: Iterable[TenantConfig],
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        book = ledger or Ledger(None, clock=clock, wall=wall)
        self._accounts = {tenant.name: Account(tenant, book, clock()) for tenant in tenants}

    def admit(self, tenant: TenantConfig, *, images: int, tokens: int) -> Admission:
        """Let a request in, and set aside all that it may use; or refuse it, and take nothing.

        Args:
            tokens: the most that it can use: those of the prompt, and of each answer as many as it may have.

        Raises:
            RateLimitError: a limit stands against it; of several, the one that does so for longest.
        """
        if images < 0 or tokens < 0:
            raise ValueError(f"images and tokens must be at least 0; got {images} and {tokens}")
        account, now = self._accounts[tenant.name], self._clock()
        wanted = {"requests": 1, "images": images, "tokens": tokens}
        refusals = list(account.refusals(wanted, now))
        if refusals:
            raise max(refusals, key=_pause_seconds)
        account.take(wanted, now)
        return Admission(account, tokens, self._clock)

    def in_flight(self, tenant: TenantConfig) -> int:
        """Requests that were admitted and have not ended."""
        return self._accounts[tenant.name].in_flight

    def headers(self, tenant: TenantConfig) -> dict[str, str]:
        """OpenAI's headers of each rate that is limited: the limit, what is left, and when it will be whole again."""
        headers, now = {}, self._clock()
        for resource, bucket in self._accounts[tenant.name].buckets.items():
            headers[f"x-ratelimit-limit-{resource}"] = str(bucket.per_minute)
            headers[f"x-ratelimit-remaining-{resource}"] = str(bucket.remaining(now))
            headers[f"x-ratelimit-reset-{resource}"] = _duration(bucket.wait_ns(bucket.per_minute, now))
        return headers


class Admission:
    """A request's place, from its admission to the end of its `with` block, or to `close`.

    A request of which anything was answered is settled: what it used is charged in place of the estimate. One that
    ends unsettled answered nothing, and its tokens are given back whole. Either way it was a request, and its images
    were looked at: their rates keep it.
    """

    def __init__(self, account: Account, estimate: int, clock: Callable[[], int]) -> None:
        self._account, self._clock = account, clock
        self._estimate: int | None = estimate  # None: settled
        self._is_open = True

    def settle(self, actual_tokens: int) -> None:
        """Charge what was used, once: less than the estimate is given back, more is a debt that others wait for.

        Raises:
            RuntimeError: it was settled before, or has ended.
        """
        if actual_tokens < 0:
            raise ValueError(f"actual_tokens must be at least 0; got {actual_tokens}")
        if self._estimate is None:
            raise RuntimeError("an admission is settled once, and before it ends")
        estimate, self._estimate = self._estimate, None
        self._account.settle(estimate, actual_tokens, self._clock())

    def close(self) -> None:
        """Give the place back, and the estimate too where nothing was settled. A second time it does nothing."""
        if self._is_open:
            self._is_open = False
            self._account.release()
            if self._estimate is not None:
                self.settle(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _pause_seconds(refusal: RateLimitError) -> float:
    return math.inf if refusal.retry_after_seconds is None else refusal.retry_after_seconds


def _duration(nanoseconds: int) -> str:
    """As OpenAI writes it: `0s`, `120ms`, `7.5s`, `1m0s`; rounded up."""
    milliseconds = -(-nanoseconds // 1_000_000)
    minutes, rest = divmod(milliseconds, 60_000)
    if minutes:
        return f"{minutes}m{rest / 1000:g}s"
    return f"{rest}ms" if 0 < rest < 1000 else f"{rest / 1000:g}s"
