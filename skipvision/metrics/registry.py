"""What is recorded: the values of the catalogue's metrics in one process or job, and the port they are read from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from threading import Lock
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, core, generate_latest, start_http_server

from skipvision.errors import ConfigError
from skipvision.metrics.catalogue import BUILD, CATALOGUE, Kind, Metric
from skipvision.version import __version__

Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels, in the order of the declaration."""


class Registry:
    """The numbers of one process or job, kept apart from every other registry and served over HTTP on request.

    Totals are plain values here and become Prometheus series when they are read: the client library's own counters
    would publish a `_created` series beside each, which nobody declared.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._values: dict[Series, float] = {}
        self._counts: dict[Series, list[int]] = {}  # histograms: rows per bucket, the open one last
        self._server: WSGIServer | None = None
        self._exposed = CollectorRegistry()
        for metric in CATALOGUE.values():
            for labels in metric.series():
                self._values[metric.name, labels] = 0.0
                if metric.kind == "histogram":
                    self._counts[metric.name, labels] = [0] * (len(metric.buckets) + 1)
        self.set(BUILD, 1, version=__version__)
        self._exposed.register(self)

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        """Raise a counter by `value`, which may be 0 and not negative."""
        series = _series(metric, "counter", labels)
        if value < 0:
            raise ValueError(f"{metric.name} only goes up; got {value}")
        with self._lock:
            self._values[series] += value

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge to `value`."""
        series = _series(metric, "gauge", labels)
        with self._lock:
            self._values[series] = value

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Count each of `values` in its bucket of a histogram."""
        series = _series(metric, "histogram", labels)
        with self._lock:
            self._values[series] += sum(values)
            for value in values:
                self._counts[series][bisect_left(metric.buckets, value)] += 1

    def value(self, metric: Metric, **labels: str) -> float:
        """What stands in one series now; of a histogram, the sum of what was observed."""
        return self._values[_series(metric, metric.kind, labels)]

    def text(self) -> str:
        """Every series in Prometheus' text format."""
        return generate_latest(self._exposed).decode()

    def serve(self, port: int, host: str = "127.0.0.1") -> int:
        """Answer `GET /metrics` from a thread of its own until `close`; port 0 takes any free one.

        Returns:
            The port it listens on.

        Raises:
            ConfigError: the port is taken or may not be opened.
        """
        try:
            self._server, _ = start_http_server(port, addr=host, registry=self._exposed)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"metrics cannot be served on port {port} of {host}: {error}; choose another port, or 0 for any"
            ) from error
        return self._server.server_port

    def close(self) -> None:
        """Stop serving. The numbers stay."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def collect(self) -> Iterable[core.Metric]:
        """What prometheus_client asks for at each scrape: a consistent copy of all numbers."""
        with self._lock:
            values = dict(self._values)
            counts = {series: tuple(buckets) for series, buckets in self._counts.items()}
        for metric in CATALOGUE.values():
            yield _family(metric, values, counts)


def _series(metric: Metric, kind: Kind, labels: Mapping[str, str]) -> Series:
    """The series that `labels` name, once the metric, its kind and every label value are known to be declared."""
    if CATALOGUE.get(metric.name) is not metric:
        raise ValueError(f"{metric.name} is not in the catalogue")
    if metric.kind != kind:
        raise ValueError(f"{metric.name} is a {metric.kind} and cannot be used as a {kind}")
    if labels.keys() != metric.labels.keys():
        raise ValueError(f"{metric.name} has the labels {sorted(metric.labels)}; got {sorted(labels)}")
    for name, value in labels.items():
        if value not in metric.labels[name]:
            raise ValueError(f"{metric.name} knows {name}={', '.join(metric.labels[name])}; got {value!r}")
    return metric.name, tuple(labels[name] for name in metric.labels)


def _family(metric: Metric, values: Mapping[Series, float], counts: Mapping[Series, tuple[int, ...]]) -> core.Metric:
    """One metric with all its series, as prometheus_client prints them."""
    if metric.kind == "counter":
        counter = core.CounterMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        for labels in metric.series():
            counter.add_metric(labels, values[metric.name, labels])
        return counter
    if metric.kind == "gauge":
        gauge = core.GaugeMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        for labels in metric.series():
            gauge.add_metric(labels, values[metric.name, labels])
        return gauge
    histogram = core.HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
    bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
    for labels in metric.series():
        rows_up_to = accumulate(counts[metric.name, labels])
        histogram.add_metric(labels, list(zip(bounds, rows_up_to, strict=True)), values[metric.name, labels])
    return histogram
