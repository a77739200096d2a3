"""An OpenTelemetry collector for tests: takes OTLP over HTTP as one would, and shows what it was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class Seen:
    """One span, as plain values."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began: int
    ended: int
    attributes: dict[str, Any]
    failed: bool
    message: str
    links: list[tuple[str, str]]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What it was sent."""

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Seen]:
        """In the order of their beginnings."""
        found = [
            _seen(span, resource_spans.resource.attributes)
            for body in [*self.bodies]
            for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource_spans.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: (span.began, span.ended))

    def wait_for(self, is_it: Callable[[Seen], bool], *, seconds: float = 20) -> list[Seen]:
        """The spans of the first trace that has such a one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            spans = self.spans()
            for span in spans:
                if is_it(span):
                    return [each for each in spans if each.trace == span.trace]
            time.sleep(0.05)
        raise AssertionError(f"not among {[(span.name, span.attributes) for span in self.spans()]}")


@contextmanager
def collector(*, silent: bool = False) -> Iterator[Collector]:
    """One that runs inside the `with` block. `silent`: it takes requests and never answers."""
    seen, over = Collector(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if silent:
                over.wait()
                return
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            seen.bodies.append(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield seen
        finally:
            over.set()
            server.shutdown()


def undocumented(spans: list[Seen]) -> set[str]:
    """Attributes that docs/tracing.md does not name."""
    page = (Path(__file__).parents[1] / "docs" / "tracing.md").read_text()
    return {name for span in spans for name in span.attributes if f"`{name}`" not in page}


def children(spans: list[Seen], of: Seen) -> list[Seen]:
    return [span for span in spans if span.parent == of.id]


def names(spans: list[Seen]) -> list[str]:
    return [span.name for span in spans]


def assert_nested(spans: list[Seen], of: Seen) -> None:
    """Children follow one another inside their parent, and so do theirs."""
    before = of.began
    for span in children(spans, of):
        assert before <= span.began <= span.ended <= of.ended, span.name
        before = span.ended
        assert_nested(spans, span)


def _seen(span: Span, resource: Any) -> Seen:
    return Seen(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes={each.key: _value(each.value) for each in span.attributes},
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message + "".join(event.name for event in span.events),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        resource={each.key: _value(each.value) for each in resource},
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
