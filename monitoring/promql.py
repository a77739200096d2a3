"""Whether an expression can say what it means to: names, labels and kinds, held against the catalogue.

Labels are followed from the series through every operation, so that a label that is gone, or two sides of a division
that never meet, are found without a Prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import promql_parser as promql

from skipvision.metrics import CATALOGUE, Metric

SCRAPED = frozenset({"cluster", "instance", "job"})
"""Labels that the scrape adds to every series."""

Labels = frozenset[str]


def selectors(expr: str) -> list[promql.VectorSelector]:
    """Every series that an expression asks for."""
    return _selectors_under(promql.parse(expr))


def metric_named(name: str, catalogue: Mapping[str, Metric] = CATALOGUE) -> Metric | None:
    """The metric of a series' name, the suffixes of histograms included."""
    if metric := catalogue.get(name):
        return None if metric.kind == "histogram" else metric
    base, _, part = name.rpartition("_")
    metric = catalogue.get(base) if part in {"bucket", "sum", "count"} else None
    return metric if metric and metric.kind == "histogram" else None


@dataclass(slots=True)
class Check:
    """One expression, followed from its series to its answer."""

    expr: str
    """With all variables filled in."""
    window: timedelta | None = None
    """What rates must be taken over, where that is asked."""
    catalogue: Mapping[str, Metric] = field(default_factory=lambda: CATALOGUE)
    problems: list[str] = field(default_factory=list)
    labels: Labels = frozenset()
    """Of the answer's series."""

    def __post_init__(self) -> None:
        try:
            parsed = promql.parse(self.expr)
        except ValueError as error:
            self.problems.append(f"does not parse: {error}")
        else:
            self.labels = self._follow(parsed, grown=False) or frozenset()

    def _follow(self, node: promql.Expr, *, grown: bool | None) -> Labels | None:
        """The labels of a sub-expression; None: a number without any.

        Args:
            grown: whether this is under `rate` or `increase`. None: it does not matter, values are not looked at.
        """
        if isinstance(node, promql.ParenExpr):
            return self._follow(node.expr, grown=grown)
        if isinstance(node, promql.VectorSelector):
            return self._series(node, grown=grown)
        if isinstance(node, promql.MatrixSelector):
            return self._series(node.vector_selector, grown=grown)
        if isinstance(node, promql.AggregateExpr):
            return self._aggregate(node)
        if isinstance(node, promql.BinaryExpr):
            return self._binary(node)
        if isinstance(node, promql.Call):
            return self._call(node)
        if isinstance(node, promql.NumberLiteral):
            return None
        self.problems.append(f"{type(node).__name__} is not understood here")
        return frozenset()

    def _series(self, node: promql.VectorSelector, *, grown: bool | None) -> Labels:
        name = node.name or ""
        metric = metric_named(name, self.catalogue)
        if metric is None:
            self.problems.append(f"{name} is not published")
            return frozenset()
        counts = metric.kind != "gauge"
        if grown is not None and counts != grown:
            self.problems.append(f"{name} is a {metric.kind}: {'only' if counts else 'never'} under rate or increase")
        labels = frozenset(metric.label_names) | SCRAPED | ({"le"} if name.endswith("_bucket") else set())
        for matcher in node.matchers.matchers:
            self._matcher(metric, labels, matcher)
        return labels

    def _matcher(self, metric: Metric, labels: Labels, matcher: promql.Matcher) -> None:
        if matcher.name not in labels:
            self.problems.append(f"{metric.name} has no label {matcher.name}")
        elif matcher.name == "le" and float(matcher.value) not in metric.buckets:
            self.problems.append(f"{metric.name} has no bucket up to {matcher.value}")
        elif matcher.value != ".*" and (values := metric.labels.get(matcher.name)):
            is_pattern = matcher.op == promql.MatchOp.Re or matcher.op == promql.MatchOp.NotRe
            wanted = matcher.value.split("|") if is_pattern else [re.escape(matcher.value)]
            for each in wanted:
                if not any(re.fullmatch(each, value) for value in values):
                    self.problems.append(f"{metric.name} knows no {matcher.name}={each}")

    def _call(self, node: promql.Call) -> Labels | None:
        grown = node.func.name in {"rate", "increase"}
        if node.func.name == "rate" and self.window and node.args[0].range != self.window:
            self.problems.append(f"a rate over {node.args[0].range}, not over $__rate_interval")
        followed = [self._follow(each, grown=grown) for each in node.args]
        labels = next((each for each in followed if each is not None), None)
        if node.func.name == "histogram_quantile":
            if "le" not in (labels or ()):
                self.problems.append("a percentile needs the label le")
            return (labels or frozenset()) - {"le"}
        return labels

    def _aggregate(self, node: promql.AggregateExpr) -> Labels:
        inner = self._follow(node.expr, grown=None if str(node.op) == "group" else False) or frozenset()
        if node.modifier is None:
            kept: Labels = inner if str(node.op) in {"topk", "bottomk"} else frozenset()
        elif node.modifier.type == promql.AggModifierType.By:
            kept = frozenset(node.modifier.labels)
            self._must_have(inner, kept)
        else:
            self._must_have(inner, frozenset(node.modifier.labels))
            kept = inner - set(node.modifier.labels)
        if "basis" not in kept:
            self._one_basis(node.expr)
        return kept

    def _one_basis(self, *nodes: promql.Expr) -> None:
        """Measured and modelled are never added: whoever drops the label has chosen one."""
        chosen: set[str] = set()
        for each in (selector for node in nodes for selector in _selectors_under(node)):
            metric = metric_named(each.name or "", self.catalogue)
            if metric is None or "basis" not in metric.labels:
                continue
            wanted = [m.value for m in each.matchers.matchers if m.name == "basis" and m.op == promql.MatchOp.Equal]
            if not wanted:
                self.problems.append(f"{metric.name} is added up over what is measured and what is modelled")
            chosen.update(wanted)
        if len(chosen) > 1:
            self.problems.append("measured and modelled numbers meet in one sum")

    def _binary(self, node: promql.BinaryExpr) -> Labels | None:
        left, right = (self._follow(each, grown=False) for each in (node.lhs, node.rhs))
        if str(node.op) == "+":
            self._one_basis(node.lhs, node.rhs)
        if left is None or right is None:
            return right if left is None else left
        modifier = node.modifier
        if modifier is None or modifier.matching is None:
            if left != right:
                self.problems.append(f"two sides that never meet: {sorted(left)} and {sorted(right)}")
            return left
        named = frozenset(modifier.matching.labels)
        on = modifier.matching.type == promql.LabelModifierType.Include
        if on:
            self._must_have(left, named)
            self._must_have(right, named)
        else:
            self._must_have(left | right, named)
            if left - named != right - named:
                self.problems.append(f"two sides that never meet: {sorted(left - named)} and {sorted(right - named)}")
        if str(node.op) in {"and", "unless"}:
            return left
        if modifier.card == promql.VectorMatchCardinality.ManyToOne:
            return left | frozenset(modifier.group_labels or ())
        return named if on else left - named

    def _must_have(self, labels: Labels, named: Labels) -> None:
        for label in sorted(named - labels):
            self.problems.append(f"there is no label {label} here, only {sorted(labels)}")


def _selectors_under(node: promql.Expr) -> list[promql.VectorSelector]:
    own = [node] if isinstance(node, promql.VectorSelector) else []
    return own + [each for child in _children(node) for each in _selectors_under(child)]


def _children(node: promql.Expr) -> list[promql.Expr]:
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql.Call):
        return list(node.args)
    if isinstance(node, promql.AggregateExpr | promql.ParenExpr):
        return [node.expr]
    return []
