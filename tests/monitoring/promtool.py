"""Prometheus' own tool, and a rule with its tests apart from all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.rule_files import RECORDED, TESTS, Rule, name_of, names


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it, wherever it is; skip where it is not."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("tests of rules need promtool: install Debian's package prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


class Bench:
    """One rule in a folder of its own, with what it reads and with the tests that are about it.

    All rules are evaluated at every step of every test: a rule alone takes a fiftieth of the time.
    """

    def __init__(self, rule: Rule, folder: Path) -> None:
        self._name, self._folder = name_of(rule), folder
        needed = _needed(rule)
        self._read = [recorded for name, recorded in RECORDED.items() if name in needed]
        self._tests = []
        for number, file in enumerate(TESTS):
            content = yaml.safe_load(file.read_text())
            tests = [about for test in content["tests"] if (about := self._about(test))]
            if tests:
                self._tests.append(folder / f"{number}.yml")
                plan = {"evaluation_interval": content["evaluation_interval"], "rule_files": ["rules.yml"]}
                self._tests[-1].write_text(yaml.safe_dump({**plan, "tests": tests}))

    def passes(self, rule: Rule) -> bool:
        """Whether the tests find nothing wrong with the rule, as it is given here."""
        # In one group rules are evaluated in order, so that the last one reads what the others have just computed.
        group = {"name": "alone", "rules": [*self._read, rule]}
        (self._folder / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}))
        done = promtool("test", "rules", *self._tests)
        said = done.stdout + done.stderr
        assert "could not parse" not in said, said
        assert done.returncode == 0 or "exp" in said, said  # what was expected, and what came
        return done.returncode == 0

    def _about(self, test: dict[str, Any]) -> dict[str, Any] | None:
        """A test without what it says of other rules; None: it says nothing of this one."""
        alerts = [each for each in test.get("alert_rule_test", ()) if each["alertname"] == self._name]
        values = [each for each in test.get("promql_expr_test", ()) if self._name in names(each["expr"])]
        if not alerts and not values:
            return None
        return {**test, "alert_rule_test": alerts, "promql_expr_test": values}


def _needed(rule: Rule) -> set[str]:
    """Names of the rules that a rule reads, and that those read."""
    direct = names(rule["expr"]) & RECORDED.keys()
    return direct.union(*(_needed(RECORDED[name]) for name in direct))
