"""Traces: what makes one, who gets it, and that nobody ever waits for whoever should."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from service.config import ServiceConfig
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError
from skipvision.tracing import Clock, check_installed, otlp, tracer
from skipvision.tracing.otlp import MOST_SPANS, Tracer
from tests.collector import Collector, assert_nested, children, collector, names

ROOT = Path(__file__).parents[1]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def of(seen: Collector, share: float = 1.0) -> Tracer:
    made = tracer(seen.address, share, service="a test")
    assert made is not None
    return made


def make(traces: Tracer, **how: object) -> bool:
    """One trace; whether it is made."""
    now = time.time_ns()
    span = traces.begin("work", now, **how)
    is_made = span.is_recording()
    span.end(now + 10)
    return is_made


def test_a_trace_arrives_as_it_was_made() -> None:
    with collector() as seen:
        traces = of(seen)
        root = traces.begin("work", 1_000, serves=True)
        root.set_attributes({"skipvision.images": 2, "reasons": ["stop"]})
        traces.lay_out({"queue": 2e-9, "decode": 5e-9, "write": 9e-9}, root, 1_001, 1_010, {"decode": {"tokens": 3}})
        traces.fail(root, "image_empty")
        root.end(1_010)
        traces.close()
    spans = seen.spans()
    [found] = [span for span in spans if not span.parent]
    assert (found.name, found.kind, found.failed, found.message) == ("work", 2, True, "")
    assert found.attributes == {"skipvision.images": 2, "reasons": ["stop"], "error.type": "image_empty"}
    assert found.resource["service.name"] == "a test"
    assert names(children(spans, found)) == ["queue", "decode", "write"]
    assert [(span.began, span.ended) for span in children(spans, found)] == [(1001, 1003), (1003, 1008), (1008, 1010)]
    assert children(spans, found)[1].attributes == {"tokens": 3}
    assert_nested(spans, found)


@pytest.mark.parametrize(
    ("share", "flags", "is_made"),
    [(1, None, True), (0, None, False), (0, "01", True), (1, "00", False), (1, "garbage", True), (0, "garbage", False)],
)
def test_the_share_decides_unless_the_caller_has(share: float, flags: str | None, is_made: bool) -> None:
    with collector() as seen:
        traces = of(seen, share)
        assert make(traces, traceparent=flags and f"00-{TRACE}-{PARENT}-{flags}") is is_made
        traces.close()
    spans = seen.spans()
    assert len(spans) == is_made
    if flags == "01":
        assert (spans[0].trace, spans[0].parent) == (TRACE, PARENT)


def test_about_the_share_is_made_and_what_must_be_always() -> None:
    with collector() as seen:
        traces = of(seen, 0.25)
        assert 300 < sum(make(traces) for _ in range(2000)) < 700
        assert all(make(traces, always=True) for _ in range(20))
        traces.close()


def test_what_is_flushed_has_arrived() -> None:
    with collector() as seen:
        traces = of(seen)
        for _ in range(700):
            make(traces)
        traces.flush()
        assert len(seen.spans()) == 700
        traces.close()


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "silent"])
def test_a_collector_that_is_away_costs_nobody_time_nor_much_memory(
    silent: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 1.0)
    with collector(silent=True) as seen, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        seen.address = seen.address if silent else f"http://127.0.0.1:{closed.getsockname()[1]}"
        traces = of(seen)
        began = time.monotonic()
        make(traces)
        traces.flush()
        assert time.monotonic() - began < 0.5 + 0.4
        began = time.monotonic()
        for _ in range(50):
            make(traces)
            traces.flush()
        assert time.monotonic() - began < 0.5
        for _ in range(MOST_SPANS + 100):
            traces.begin("work", 1).end(2)
        assert len(traces._processor._batch_processor._queue) <= MOST_SPANS
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < 1 + 0.4
    assert len([record for record in caplog.records if "trace_exporter" in record.name]) <= 1


def test_time_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, before = Clock(), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: before - 10**12)
    times = [clock.now() for _ in range(100)]
    assert all(first <= second for first, second in pairwise(times))
    assert abs(times[0] - before) < 10**9


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:4318", "such as http://127.0.0.1:4318"),
        ("grpc://collector:4317", "such as http"),
        ("http://", "such as http"),
        ("http://collector:port", "such as http"),
        ("http://[::1", "such as http"),
        ("https://me:secret@collector", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("https://collector?key=secret", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://collector:4318/v1/traces/", "without /v1/traces"),
    ],
)
def test_a_wrong_address_is_refused_and_no_secret_repeated(address: str, says: str) -> None:
    for kind, others in ((ServiceConfig, {}), (JobConfig, {"input": "a", "output": "b"})):
        with pytest.raises(ConfigError, match=says) as refusal:
            check({**others, "traces": address}, kind, origin="a test")
        assert "secret" not in str(refusal.value)


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'skipvision\[trace\]'"):
        check_installed("http://127.0.0.1:4318")


def test_off_as_it_is_by_default_no_trace_is_made_and_nothing_of_it_imported() -> None:
    assert ServiceConfig().traces is JobConfig(input="a", output="b").traces is None
    assert tracer(None, 1.0, service="a test") is None
    # Ray Serve imports OpenTelemetry where it finds it; what we need to send spans it does not.
    core = "import skipvision.cli, skipvision.config, skipvision.tracing"
    whole = "import pipelines.job, pipelines.traces, service.application, service.running, service.traces"
    assert not _loaded(core, "opentelemetry")
    assert not _loaded(whole, "opentelemetry.exporter.otlp", "skipvision.tracing.otlp")


def _loaded(statement: str, *packages: str) -> list[str]:
    code = f"import sys\n{statement}\nprint([name for name in sys.modules if name.startswith({packages!r})])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = eval(ran.stdout.splitlines()[-1])
    return found
