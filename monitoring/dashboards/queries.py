"""Expressions from the catalogue's metrics.

They are written from `Metric` objects, so that a name, a label or a value that is not declared is refused here. Each
selector is narrowed by the variables that its metric has labels for. Nothing here knows panels.
"""

from __future__ import annotations

from typing import Self

from skipvision import metrics
from skipvision.metrics import Metric

VARIABLE_OF = {
    "cluster": "cluster",
    "workload": "workload",
    "model": "model",
    "skip": "skip",
    "tenant": "tenant",
    "job_name": "job",
}
"""Label -> the variable that narrows it. `cluster` is a label that the scrape adds, to every series."""

RATE = "$__rate_interval"
RANGE = "$__range"


class Of:
    """The series of one metric, and what can be asked of them.

    Args:
        where: label -> the value, or the values, that are meant; the board's variable no longer narrows that label.
    """

    def __init__(self, metric: Metric, **where: str | tuple[str, ...]) -> None:
        for label, wanted in where.items():
            if label not in metric.label_names:
                raise ValueError(f"{metric.name} has no label {label}; it has {list(metric.label_names)}")
            values = {wanted} if isinstance(wanted, str) else set(wanted)
            if label in metric.labels and not values <= set(metric.labels[label]):
                raise ValueError(f"{metric.name} knows {label}={', '.join(metric.labels[label])}; got {wanted!r}")
        self._metric, self._where = metric, where
        self._free: tuple[str, ...] = ()

    def whatever(self, *labels: str) -> Self:
        """The same for every value of `labels`, whatever the board's variables say."""
        self._free = labels
        return self

    def per_second(self, *by: str) -> str:
        """By how much a counter grows in a second."""
        return self._sum(self.rate(by=by), by)

    def in_range(self, *by: str, window: str = RANGE) -> str:
        """By how much a counter grew in the time that the board shows, or in another window."""
        return self._sum(self.growth(window=window, by=by), by)

    def rate(self, *, by: tuple[str, ...] = ("basis",)) -> str:
        """Of each series by itself."""
        return f"rate({self._selector(self._counter(), by)}[{RATE}])"

    def growth(self, *, window: str = RANGE, by: tuple[str, ...] = ("basis",)) -> str:
        """Of each series by itself."""
        return f"increase({self._selector(self._counter(), by)}[{window}])"

    def now(self, *by: str, total: bool = False) -> str:
        """What a gauge says: added up, or the highest where that is how its values become one."""
        self._must_be("gauge")
        aggregate = "sum" if total or self._metric.merge == "sum" else "max"
        return f"{aggregate}{_by(by)}({self._selector(self._metric.name, by)})"

    def known(self, *by: str) -> str:
        """1 for every combination of labels that there is."""
        return f"group{_by(by)}({self._selector(self._metric.name, by)})"

    def percentile(self, share: float, *by: str) -> str:
        """The value that a share of what a histogram observed stays below, by its buckets."""
        buckets = self._selector(self._part("bucket"), by)
        return f"histogram_quantile({share}, sum{_by(('le', *by))}(rate({buckets}[{RATE}])))"

    def mean(self, *by: str) -> str:
        """Of what a histogram observed."""
        total, count = (self._selector(self._part(part), by) for part in ("sum", "count"))
        return ratio(f"sum{_by(by)}(rate({total}[{RATE}]))", f"sum{_by(by)}(rate({count}[{RATE}]))")

    def within(self, bound: float, *, window: str | None = None) -> str:
        """Share of what a histogram observed that was at most `bound`, one of its buckets' bounds."""
        if bound not in self._metric.buckets:
            raise ValueError(f"{self._metric.name} has no bucket up to {bound}; it has {self._metric.buckets}")
        within = self._selector(self._part("bucket"), (), f'le="{float(bound)}"')
        everything = self._selector(self._part("count"), ())
        grown = "rate({}[" + RATE + "])" if window is None else "increase({}[" + window + "])"
        return ratio(f"sum({grown.format(within)})", f"sum({grown.format(everything)})")

    def _sum(self, series: str, by: tuple[str, ...]) -> str:
        return f"sum{_by(by)}({series})"

    def _counter(self) -> str:
        self._must_be("counter")
        return self._metric.name

    def _part(self, part: str) -> str:
        self._must_be("histogram")
        return f"{self._metric.name}_{part}"

    def _must_be(self, kind: str) -> None:
        if self._metric.kind != kind:
            raise ValueError(f"{self._metric.name} is a {self._metric.kind}; this is asked of a {kind}")

    def _selector(self, name: str, by: tuple[str, ...], *more: str) -> str:
        if unknown := set(by) - {*self._metric.label_names, "cluster"} - {"basis"}:
            raise ValueError(f"{self._metric.name} has no label {sorted(unknown)}")
        matchers = ['cluster=~"$cluster"', *more]
        for label in self._metric.label_names:
            wanted = self._where.get(label, self._only_basis(by) if label == "basis" else "")
            if wanted:
                matchers.append(_matcher(label, wanted))
            elif label in VARIABLE_OF and label not in self._free:
                matchers.append(f'{label}=~"${VARIABLE_OF[label]}"')
        return f"{name}{{{', '.join(matchers)}}}"

    def _only_basis(self, by: tuple[str, ...]) -> str:
        """What `basis` must be, so that measured and modelled numbers never meet; empty: it is kept apart."""
        bases = self._metric.labels["basis"]
        if len(bases) == 1:
            return bases[0]
        if "basis" not in by:
            raise ValueError(f"{self._metric.name} is measured and modelled: choose one, or keep them apart")
        return ""


def ratio(part: str, whole: str) -> str:
    """One expression by another, where that is above 0; elsewhere there is nothing to say."""
    return f"{part} / ({whole} > 0)"


def saved_money(basis: str, *by: str) -> str:
    """Dollars in the time shown: what all tokens would have cost less what was spent, where the first is known.

    Baselines that stay at 0 were not measured: their costs are left out, or they would look like losses.
    """
    baseline, cost = Of(metrics.BASELINE_COST, basis=basis).growth(), Of(metrics.COST).growth()
    return f"sum{_by(('basis', *by))}(({baseline} > 0) - ignoring (basis) group_left () {cost})"


def saved_money_per_hour(basis: str) -> str:
    """The same as a speed."""
    baseline, cost = Of(metrics.BASELINE_COST, basis=basis).rate(), Of(metrics.COST).rate()
    return f"3600 * sum by (basis) (({baseline} > 0) - ignoring (basis) group_left () {cost})"


def spent_where_known(actual: Metric, baseline: Metric, basis: str) -> str:
    """The speed of what was spent on the work whose baseline is known: what that baseline may be put beside."""
    missing = [label for label in actual.label_names if label not in baseline.label_names]
    known = f"({Of(baseline, basis=basis).rate()} > 0)"
    return f"sum by (basis) ({Of(actual).rate()} and ignoring ({', '.join(['basis', *missing])}) {known})"


def saved_share(basis: str, *by: str) -> str:
    """Of what all tokens would have cost."""
    return ratio(saved_money(basis, *by), Of(metrics.BASELINE_COST, basis=basis).in_range("basis", *by))


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


def _matcher(label: str, wanted: str | tuple[str, ...]) -> str:
    return f'{label}="{wanted}"' if isinstance(wanted, str) else f'{label}=~"{"|".join(wanted)}"'
