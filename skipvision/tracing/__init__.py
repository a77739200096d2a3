"""Traces: how long the parts of one request or row took, told to an OpenTelemetry collector.

What the settings must be stands here. `otlp` makes the spans and sends them; it alone imports OpenTelemetry, and is
imported itself only where traces are asked for.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from skipvision.tracing.otlp import Tracer

__all__ = ["Clock", "check_address", "check_installed", "tracer"]

PATH = "/v1/traces"
"""Where a collector takes spans, by OTLP's definition."""


class Clock:
    """The time of the day, in nanoseconds, that never goes back: made once for each request or shard."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """Since the epoch."""
        return self._offset + time.monotonic_ns()


def check_address(address: str | None) -> None:
    """Refuse what no collector can be found at.

    Raises:
        ConfigError: with the remedy; it does not repeat what may be a password.
    """
    if address is None:
        return
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        is_whole = False
    if not is_whole:
        raise ConfigError("traces must be a collector's OTLP/HTTP address, such as http://127.0.0.1:4318")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "traces must be an address alone; what a collector wants to know beside it goes into the environment "
            "variable OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.path.rstrip("/").endswith(PATH):
        raise ConfigError(f"traces must be the collector's address without {PATH}, which is added")


def check_installed(address: str | None) -> None:
    """Refuse to begin without what sends spans.

    Raises:
        ConfigError: it is asked for and not installed here.
    """
    if address is not None and not _is_installed():
        raise ConfigError("traces needs OpenTelemetry, which is not installed here: pip install 'skipvision[trace]'")


def tracer(address: str | None, share: float, *, service: str) -> Tracer | None:
    """Makes the traces of one process. None: they are off.

    Args:
        share: of the traces that begin here, 0 to 1.
        service: what the collector is to call this program.

    Raises:
        ConfigError: OpenTelemetry is not installed here.
    """
    check_installed(address)
    if address is None:
        return None
    from skipvision.tracing.otlp import Tracer

    return Tracer(address.rstrip("/") + PATH, share, service=service)


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ImportError:  # of one of the packages that it stands in
        return False
