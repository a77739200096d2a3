"""Rules with one thing wrong, each of which some test must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import promql_parser
from promql_parser import BinaryExpr, Expr, Matchers, NumberLiteral, VectorSelector

from tests.monitoring.rule_files import Rule

FLIPPED = {">": "<", "<": ">", ">=": "<", "<=": ">", "==": "!=", "!=": "=="}


Change = Callable[[Any], list[tuple[str, str]]]
"""What may be wrong with a part of an expression: what that is, and the part with it."""


def mutations(rule: Rule, changes: Iterable[Change]) -> Iterator[tuple[str, Rule]]:
    """What is wrong, and the rule with it."""
    if rule["expr"].strip() == "vector(1)":
        yield "never told", {**rule, "expr": "vector(1) > 1"}
        return
    for change in changes:
        for what, expression in _each_place(rule["expr"], change):
            yield what, {**rule, "expr": expression}
    if "for" in rule:
        yield "told at once", {key: value for key, value in rule.items() if key != "for"}


def _each_place(expression: str, change: Change) -> Iterator[tuple[str, str]]:
    """The expression with one change, at each place and in each way that there is."""
    places: list[tuple[int, int, str]] = []
    for place, node in enumerate(_visited(expression)):
        places += [(place, way, what) for way, (what, _) in enumerate(change(node))]
    for place, way, what in places:
        yield f"{what}, at {place}", _changed(expression, place, way, change)


def _visited(expression: str) -> list[Expr]:
    visited: list[Expr] = []
    promql_parser.transform(promql_parser.parse(expression), lambda node: visited.append(node))
    return visited


def _changed(expression: str, place: int, way: int, change: Change) -> str:
    numbers = count()

    def visit(node: Expr) -> Expr | None:
        return promql_parser.parse(change(node)[way][1]) if next(numbers) == place else None

    return str(promql_parser.transform(promql_parser.parse(expression), visit))


def _flipped(node: Expr) -> list[tuple[str, str]]:
    if not isinstance(node, BinaryExpr) or str(node.op) not in FLIPPED:
        return []
    flipped = FLIPPED[str(node.op)]
    return [(f"{node.op} is {flipped}", f"({node.lhs}) {flipped} {node.modifier or ''} ({node.rhs})")]


def _misspelt(node: Expr) -> list[tuple[str, str]]:
    return [(f"{node.name} is misspelt", f"{node.name}s{node.matchers}")] if isinstance(node, VectorSelector) else []


def _halved(node: Expr) -> list[tuple[str, str]]:
    """One half alone of what must be true together, or of what may be."""
    if not isinstance(node, BinaryExpr) or str(node.op) not in ("and", "or"):
        return []
    return [(f"{node.op} has one half", f"({half})") for half in (node.lhs, node.rhs)]


def _unmatched(node: Expr) -> list[tuple[str, str]]:
    if not isinstance(node, VectorSelector):
        return []
    matchers = node.matchers.matchers
    return [
        (f"{each} is missing", f"{node.name}{Matchers([other for other in matchers if other is not each])}")
        for each in matchers
    ]


def _ten_times(node: Expr) -> list[tuple[str, str]]:
    return [(f"{node} is ten times that", str(node.val * 10))] if _is_threshold(node) else []


def _a_tenth(node: Expr) -> list[tuple[str, str]]:
    return [(f"{node} is a tenth of that", str(node.val / 10))] if _is_threshold(node) else []


def _is_threshold(node: Expr) -> bool:
    return isinstance(node, NumberLiteral) and node.val != 0


COARSE = (_flipped, _misspelt)
FINE = (*COARSE, _halved, _unmatched, _ten_times, _a_tenth)
