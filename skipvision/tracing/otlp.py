"""Spans over the OpenTelemetry SDK, sent as OTLP over HTTP in a thread of their own.

Nobody waits for the collector: spans stand in a line of bounded length, from which they are sent or, with nobody to
take them, dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SdkTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from skipvision.version import __version__

SEND_SECONDS = 2.0
"""Longest time for one batch, tries included."""
FLUSH_SECONDS = 5.0
"""Longest time that somebody waits for what is still to be sent, at the end of a shard or of the program."""
DELAY_MS = 1000
MOST_SPANS = 16_384
"""That wait to be sent, a few KiB each; of more, the oldest are dropped."""
QUIET_SECONDS = 60.0
"""Between two lines in the log about a collector that takes nothing."""

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


class Tracer:
    """Makes spans and sends them, for one process.

    What decides whether a trace is made is its id, and where it was begun elsewhere, whether it is made there.

    Args:
        endpoint: the full address to send to.
        share: of the traces that begin here, 0 to 1.
    """

    def __init__(self, endpoint: str, share: float, *, service: str) -> None:
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_SELDOM)
        self._exporter = _Exporter(endpoint=endpoint, timeout=SEND_SECONDS)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=MOST_SPANS, schedule_delay_millis=DELAY_MS
        )  # fmt: skip
        self._resource = Resource.create({"service.name": service, "service.version": __version__})
        self._shared = self._spans(ParentBased(TraceIdRatioBased(share)))
        self._all = self._spans(ALWAYS_ON)

    def begin(
        self, name: str, began_ns: int, *, traceparent: str | None = None, serves: bool = False, always: bool = False
    ) -> Span:
        """The first span of a trace here, recording or, where the trace is not made, not.

        Args:
            traceparent: of the trace that it goes on with, as the W3C writes it. What is none is passed over.
            serves: somebody else waits for it.
            always: make it, whatever the share.
        """
        context = TraceContextTextMapPropagator().extract(
            {"traceparent": traceparent} if traceparent else {}, Context()
        )
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        return (self._all if always else self._shared).start_span(name, context, kind, start_time=began_ns)

    def part(self, name: str, of: Span, began_ns: int) -> Span:
        """A child, which is to be ended."""
        return self._shared.start_span(name, set_span_in_context(of, Context()), start_time=began_ns)

    def lay_out(
        self,
        seconds: Mapping[str, float],
        of: Span,
        began_ns: int,
        ended_ns: int,
        told: Mapping[str, Attributes] | None = None,
    ) -> None:
        """Children one after the other, of which it is known only how long each took; none goes on after `ended_ns`.

        Args:
            told: attributes of children, by name.
        """
        began_ns = min(began_ns, ended_ns)
        for name, length in seconds.items():
            span = self.part(name, of, began_ns)
            span.set_attributes((told or {}).get(name, {}))
            began_ns = min(began_ns + int(length * 1e9), ended_ns)
            span.end(began_ns)

    def fail(self, span: Span, error_type: str) -> None:
        """Mark what went wrong by the name of its kind. What an error says may tell of the input, and is left out."""
        span.set_attribute("error.type", error_type)
        span.set_status(StatusCode.ERROR)

    def flush(self) -> None:
        """Wait until all is sent, as long as the collector takes what it is sent, and for `FLUSH_SECONDS` at most."""
        if self._exporter.is_heard:
            _wait(self._processor.force_flush)

    def close(self) -> None:
        """Send what is left, in `FLUSH_SECONDS` at most. Nothing is made any more."""
        _wait(self._processor.shutdown)

    def _spans(self, sampler: Sampler) -> SdkTracer:
        provider = TracerProvider(sampler, self._resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer("skipvision", __version__)


class _Exporter(OTLPSpanExporter):
    is_heard = True
    """Whether the last batch was taken."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.is_heard = result is SpanExportResult.SUCCESS
        return result


class _Seldom(logging.Filter):
    """One line a minute: a collector that is away is so for every batch."""

    last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self.last < QUIET_SECONDS:
            return False
        self.last = now
        return True


_SELDOM = _Seldom()


def _wait(work: Callable[[], Any]) -> None:
    waiting = threading.Thread(target=work, name="last spans", daemon=True)
    waiting.start()
    waiting.join(FLUSH_SECONDS)
