"""Where the numbers of a process on Ray go: settings that travel to every process of a service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monitoring.hub import feed_of, find_hub, start_hub
from skipvision.metrics.feed import LocalNumbers, Numbers
from skipvision.metrics.hub import Hub
from skipvision.prices import PriceList


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """How numbers are published, and money is counted."""

    port: int | None = None
    """Of the cluster's hub, should there be none yet. None: none is started."""
    host: str = "127.0.0.1"
    totals: str | None = None
    prices: PriceList | None = None

    def numbers(self, *, before: Callable[[], object] = lambda: None) -> Numbers:
        """A way to the cluster's hub; where there is none, and none is wanted, to one that nobody reads.

        Args:
            before: see `Feed`.

        Raises:
            ConfigError: a hub cannot be started with these settings.
        """
        hub = find_hub()
        if hub is None and self.port is not None:
            hub, _ = start_hub(self.port, self.host, self.totals)
        return LocalNumbers(Hub()) if hub is None else feed_of(hub, before=before)
