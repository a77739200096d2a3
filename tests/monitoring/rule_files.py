"""The rule files and their tests as they stand, and what their expressions ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules"
ALERTS, RECORDING = RULES / "alerts.yml", RULES / "recording.yml"
TESTS = sorted((RULES / "tests").glob("*.yml"))

Rule = dict[str, Any]


def rules_of(file: Path) -> dict[str, Rule]:
    """Name -> rule."""
    groups = yaml.safe_load(file.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    by_name = {name_of(rule): rule for rule in rules}
    assert len(by_name) == len(rules), f"{file.name} has a rule twice"
    return by_name


def name_of(rule: Rule) -> str:
    return rule.get("alert") or rule["record"]


RECORDED, TOLD = rules_of(RECORDING), rules_of(ALERTS)
ALL = RECORDED | TOLD


def unit_tests() -> Iterator[dict[str, Any]]:
    """Every test of every file."""
    for file in TESTS:
        yield from yaml.safe_load(file.read_text())["tests"]


def nodes(expression: str, kind: type | tuple[type, ...]) -> list[Any]:
    """The parts of a PromQL expression that are of a kind."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), lambda node: found.append(node) or True)
    return [node for node in found if isinstance(node, kind)]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """What an expression reads."""
    return nodes(expression, promql_parser.VectorSelector)


def names(expression: str) -> set[str]:
    return {selector.name for selector in selectors(expression)}
