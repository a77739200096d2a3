"""What is recorded: the values of the catalogue's metrics in one process, or added up over many, and the port they are
read from.

Totals are plain values here and become Prometheus series when they are read: the client library's own counters cannot
be handed from process to process or added up once they have been.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Lock
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, core, generate_latest, start_http_server

from skipvision.errors import ConfigError
from skipvision.metrics.catalogue import BUILD, CATALOGUE
from skipvision.metrics.metric import Kind, Metric
from skipvision.version import __version__

Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels, in the order of `Metric.label_names`."""

Names = tuple[tuple[str, str], ...]
"""Labels whose values come from settings, by name, in order."""


@dataclass(kw_only=True, slots=True)
class Delta:
    """By how much numbers grew, and what gauges say; plain values, which pickle."""

    scopes: set[Names] = field(default_factory=set)
    """What anything may be counted for, though nothing has been yet."""
    counters: dict[Series, float] = field(default_factory=dict)
    histograms: dict[Series, tuple[float, ...]] = field(default_factory=dict)
    """Rows per bucket, the open one after the others, and the sum of what was observed."""
    gauges: dict[Series, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.scopes or self.counters or self.histograms or self.gauges)


class Recorder:
    """A registry seen from one piece of work: knows the labels that come from settings, and gives each metric its own.

    Every counter and histogram that they name stands at 0 from now on.
    """

    def __init__(self, registry: Registry, names: Mapping[str, str]) -> None:
        self._registry, self._names = registry, dict(names)
        registry.open(names)

    def within(self, **names: str) -> Recorder:
        """The same with further labels."""
        return Recorder(self._registry, {**self._names, **names})

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        """Raise a counter by `value`, which may be 0 and not negative."""
        self._registry.add(metric, value, **self._named(metric), **labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge to `value`."""
        self._registry.set(metric, value, **self._named(metric), **labels)

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Count each of `values` in its bucket of a histogram."""
        self._registry.observe(metric, *values, **self._named(metric), **labels)

    def _named(self, metric: Metric) -> dict[str, str]:
        return {name: self._names[name] for name in metric.named if name in self._names}


class Registry:
    """The numbers of one process or of many, kept apart from every other registry and served over HTTP on request.

    Args:
        begins_at_zero: a series is told as 0 the first time it is read, and as it is from then on. Prometheus counts no
            growth from before it first saw a series, and work that is short may have grown before that.
    """

    def __init__(self, *, begins_at_zero: bool = False) -> None:
        self._lock = Lock()
        self._counters: dict[Series, float] = {}
        self._histograms: dict[Series, list[float]] = {}  # rows per bucket, the open one, and the sum
        self._gauges: dict[Series, dict[str, float]] = defaultdict(dict)  # by who said so
        self._scopes: set[Names] = set()
        self._new: set[Series] = set()
        self._begins_at_zero = begins_at_zero
        self._server: WSGIServer | None = None
        self._exposed = CollectorRegistry()
        self.open({})
        self.set(BUILD, 1, version=__version__)
        self._exposed.register(self)

    def within(self, **names: str) -> Recorder:
        """Record for a piece of work."""
        return Recorder(self, names)

    def open(self, names: Mapping[str, str]) -> None:
        """Have every counter and histogram whose labels are named stand at 0."""
        with self._lock:
            self._open(tuple(sorted(names.items())))

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        """Raise a counter by `value`, which may be 0 and not negative."""
        series = _series(metric, "counter", labels)
        if value < 0:
            raise ValueError(f"{metric.name} only goes up; got {value}")
        with self._lock:
            self._counters[series] = self._counters.get(series, 0.0) + value

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge to `value`."""
        series = _series(metric, "gauge", labels)
        with self._lock:
            self._gauges[series][""] = value

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Count each of `values` in its bucket of a histogram."""
        series = _series(metric, "histogram", labels)
        with self._lock:
            counts = self._histograms.setdefault(series, _empty(metric))
            for value in values:
                counts[bisect_left(metric.buckets, value)] += 1
                counts[-1] += value

    def value(self, metric: Metric, **labels: str) -> float:
        """What stands in one series now; of a histogram, the sum of what was observed."""
        series = _series(metric, metric.kind, labels)
        with self._lock:
            if metric.kind == "gauge":
                return _merged(metric, self._gauges[series])
            return self._histograms[series][-1] if metric.kind == "histogram" else self._counters.get(series, 0.0)

    def take(self) -> Delta:
        """What was recorded since this was last asked, for another registry to be told; here counters are 0 again."""
        with self._lock:
            taken = Delta(
                scopes=self._scopes - {()},
                counters={series: value for series, value in self._counters.items() if value},
                histograms={series: tuple(counts) for series, counts in self._histograms.items() if any(counts)},
                gauges={series: said[""] for series, said in self._gauges.items() if series[0] != BUILD.name},
            )
            self._scopes = {()}
            for series in taken.counters:
                self._counters[series] = 0.0
            for series in taken.histograms:
                self._histograms[series] = _empty(CATALOGUE[series[0]])
            self._gauges.clear()
        return taken

    def apply(self, delta: Delta, source: str = "") -> None:
        """Count what was recorded elsewhere; its gauges are what `source` says until it says otherwise."""
        with self._lock:
            for names in delta.scopes:
                self._open(names)
            for series, value in delta.counters.items():
                self._be_new(series, series not in self._counters)
                self._counters[series] = self._counters.get(series, 0.0) + value
            for series, counts in delta.histograms.items():
                self._be_new(series, series not in self._histograms)
                mine = self._histograms.setdefault(series, _empty(CATALOGUE[series[0]]))
                mine[:] = [one + other for one, other in zip(mine, counts, strict=True)]
            for series, value in delta.gauges.items():
                self._gauges[series]["" if CATALOGUE[series[0]].merge == "latest" else source] = value

    def restore(self, delta: Delta) -> None:
        """Go on from a snapshot; its series are none that begin."""
        self.apply(delta)
        with self._lock:
            self._new.clear()

    def forget(self, source: str) -> None:
        """Leave out what a process said that is gone. What it counted stays."""
        with self._lock:
            for said in self._gauges.values():
                said.pop(source, None)

    def forget_named(self, label: str, value: str) -> None:
        """Leave out the gauges that have a label of this value."""
        with self._lock:
            for series in [each for each in self._gauges if (label, value) in _labels(each).items()]:
                del self._gauges[series]

    def said(self, metric: Metric) -> dict[tuple[str, ...], float]:
        """Every series of a gauge, by the values of its labels."""
        with self._lock:
            return {
                labels: _merged(metric, said)
                for (name, labels), said in self._gauges.items() if name == metric.name and said
            }  # fmt: skip

    def snapshot(self) -> Delta:
        """All that stays when every process is gone, as what an empty registry would have to be told."""
        with self._lock:
            return Delta(
                counters=dict(self._counters),
                histograms={series: tuple(counts) for series, counts in self._histograms.items()},
                gauges={
                    series: said[""] for series, said in self._gauges.items()
                    if CATALOGUE[series[0]].merge == "latest" and "" in said
                },
            )  # fmt: skip

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
            counters, histograms = dict(self._counters), {s: list(counts) for s, counts in self._histograms.items()}
            for series in self._new:
                if series in counters:
                    counters[series] = 0.0
                else:
                    histograms[series] = _empty(CATALOGUE[series[0]])
            self._new.clear()
            gauges = {s: _merged(CATALOGUE[s[0]], said) for s, said in self._gauges.items() if said}
        by_name: dict[str, list[Series]] = defaultdict(list)
        for series in (*counters, *histograms, *gauges):
            by_name[series[0]].append(series)
        for metric in CATALOGUE.values():
            yield _family(metric, sorted(by_name[metric.name]), counters, histograms, gauges)

    def _open(self, names: Names) -> None:
        if names in self._scopes:
            return
        self._scopes.add(names)
        for series in _seeds(dict(names)):
            kind = CATALOGUE[series[0]].kind
            values = self._counters if kind == "counter" else self._histograms
            if series not in values:
                self._be_new(series, True)
                if kind == "counter":
                    self._counters[series] = 0.0
                else:
                    self._histograms[series] = _empty(CATALOGUE[series[0]])

    def _be_new(self, series: Series, is_new: bool) -> None:
        if is_new and self._begins_at_zero:
            self._new.add(series)


def _seeds(names: Mapping[str, str]) -> Iterator[Series]:
    """The counters and histograms whose labels are all named, or closed sets."""
    for metric in CATALOGUE.values():
        if metric.kind != "gauge" and set(metric.named) <= names.keys():
            for values in metric.series():
                yield metric.name, (*(names[name] for name in metric.named), *values)


def _labels(series: Series) -> dict[str, str]:
    name, values = series
    return dict(zip(CATALOGUE[name].label_names, values, strict=True))


def _empty(metric: Metric) -> list[float]:
    return [0.0] * (len(metric.buckets) + 2)


def _merged(metric: Metric, said: Mapping[str, float]) -> float:
    return sum(said.values()) if metric.merge == "sum" else max(said.values())


def _series(metric: Metric, kind: Kind, labels: Mapping[str, str]) -> Series:
    """The series that `labels` name, once the metric, its kind and every label value are known to be declared."""
    if CATALOGUE.get(metric.name) is not metric:
        raise ValueError(f"{metric.name} is not in the catalogue")
    if metric.kind != kind:
        raise ValueError(f"{metric.name} is a {metric.kind} and cannot be used as a {kind}")
    if labels.keys() != set(metric.label_names):
        raise ValueError(f"{metric.name} has the labels {sorted(metric.label_names)}; got {sorted(labels)}")
    for name, values in metric.labels.items():
        if labels[name] not in values:
            raise ValueError(f"{metric.name} knows {name}={', '.join(values)}; got {labels[name]!r}")
    if metric.pairs and tuple(labels[name] for name in metric.labels) not in metric.pairs:
        raise ValueError(f"{metric.name} has no series with {dict(labels)}")
    return metric.name, tuple(labels[name] for name in metric.label_names)


def _family(
    metric: Metric,
    series: Sequence[Series],
    counters: Mapping[Series, float],
    histograms: Mapping[Series, Sequence[float]],
    gauges: Mapping[Series, float],
) -> core.Metric:
    """One metric with its series, as prometheus_client prints them."""
    names = list(metric.label_names)
    if metric.kind == "counter":
        counter = core.CounterMetricFamily(metric.name, metric.help, labels=names)
        for each in series:
            counter.add_metric(each[1], counters[each])
        return counter
    if metric.kind == "gauge":
        gauge = core.GaugeMetricFamily(metric.name, metric.help, labels=names)
        for each in series:
            gauge.add_metric(each[1], gauges[each])
        return gauge
    histogram = core.HistogramMetricFamily(metric.name, metric.help, labels=names)
    bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
    for each in series:
        *counts, total = histograms[each]
        histogram.add_metric(each[1], list(zip(bounds, accumulate(counts), strict=True)), total)
    return histogram
