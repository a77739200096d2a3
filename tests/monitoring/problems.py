"""What is wrong with an expression: numbers that are not published, labels that they do not have, clusters mixed up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from promql_parser import AggModifierType, AggregateExpr, BinaryExpr, LabelModifierType, Matcher, MatchOp

from skipvision.metrics import CATALOGUE, Registry
from tests.monitoring.rule_files import RECORDED, nodes, selectors

ADDED = {"cluster"}
"""Labels that a scrape configuration adds to every number."""

OF_UP = {"job", "instance"}
"""Prometheus' own, of the one number of its own that is read."""

Labels = Mapping[str, tuple[str, ...]]
"""Name -> the values that it may have; none where settings name them."""


def problems(expression: str) -> Iterator[str]:
    """What an expression asks for that there is not, or leaves out that must stay."""
    for selector in selectors(expression):
        labels = labels_of(selector.name)
        if not labels:
            yield f"{selector.name} is published by nothing"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in labels:
                yield f"{selector.name} has no label {matcher.name}"
            for value in _impossible(matcher, labels.get(matcher.name, ())):
                yield f"{matcher.name} of {selector.name} is never {value}"
    for node in nodes(expression, AggregateExpr):
        yield from _problems_of_aggregation(node)
    for node in nodes(expression, BinaryExpr):
        matching = node.modifier.matching if node.modifier else None
        if matching and (matching.type == LabelModifierType.Include) != ("cluster" in matching.labels):
            yield f"{node.op} matches across clusters"


def _problems_of_aggregation(node: AggregateExpr) -> Iterator[str]:
    kept = node.modifier.labels if node.modifier and node.modifier.type == AggModifierType.By else []
    if "cluster" not in kept:
        yield f"{node.op} forgets the cluster"
    there = set().union(*(labels_of(selector.name) for selector in selectors(str(node.expr))))
    yield from (f"nothing that is added up has a label {label}" for label in kept if label not in there)


def labels_of(name: str) -> Labels:
    """The labels of a published or recorded number; empty: nothing is called so."""
    if name == "up":
        return dict.fromkeys(ADDED | OF_UP, ())
    if name in RECORDED:
        level = name.partition(":")[0].split("_")
        return dict.fromkeys(ADDED.union(level), ())
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    metric = CATALOGUE.get(base)
    if metric is None or (metric.kind == "histogram") == (base == name):
        return {}
    bounds = {"le": bounds_of(base)} if name.endswith("_bucket") else {}
    return {**dict.fromkeys([*ADDED, *metric.named], ()), **metric.labels, **bounds}


def bounds_of(name: str) -> tuple[str, ...]:
    """The bounds of a histogram's buckets, spelt as a scrape reads them."""
    registry = Registry()
    registry.open(dict.fromkeys(CATALOGUE[name].named, "x"))
    return tuple(dict.fromkeys(re.findall(rf'^{name}_bucket{{.*le="([^"]+)"', registry.text(), re.MULTILINE)))


def _impossible(matcher: Matcher, values: tuple[str, ...]) -> list[str]:
    """Of what a matcher names, that which no series has."""
    if not values:
        return []
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        return [] if matcher.value in values else [matcher.value]
    return [each for each in matcher.value.split("|") if not any(re.fullmatch(each, value) for value in values)]
