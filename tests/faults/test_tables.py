"""What was played stands in the tables, and what was not does not."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import tables

CELL = {"runs": 10, "struck": 9, "lost": 1, "doubled": 2, "different": 3, "unfinished": 4, "unexpected": 5}


@pytest.fixture
def result() -> dict[str, Any]:
    suites = ("protocol", "chaos", "ray_checkpointing")
    return {
        "measured": {suite: measured(suite) for suite in suites},
        "protocol": {"here / kill": CELL, "there / kill": CELL},
    }


def measured(suite: str) -> dict[str, Any]:
    return {
        "command": f"python -m benchmarks.faults {suite}",
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "machine": {"processor": f"the processor for {suite}", "cores": 2, "threads": 2, "gpu": None},
        "versions": {"torch": "1", "transformers": "2"},
    }


def row(table: str, name: str) -> list[str]:
    return [cell.strip() for line in table.splitlines() if name in line for cell in line.strip("|").split("|")]


def test_the_cells_of_a_suite_are_summed(result):
    table = tables.faults(result)
    assert row(table, "without Ray")[2:] == ["20", "2", "4", "6", "8", "10"]
    assert "18 of 20 jobs" in table
    assert "the processor for protocol" in table
    assert "the processor for chaos" not in table


def test_a_suite_that_was_not_played_is_left_out(result):
    assert "cluster" not in tables.faults(result)
    assert "Not played yet" in tables.checkpointing(result)


def test_jobs_broken_by_lot_say_what_happened_to_them(result):
    wrong = dict.fromkeys(("lost", "doubled", "different", "unfinished"), 0)
    strikes = {"node killed": 3, "driver killed": 2}
    result["chaos"] = {"jobs": 4, "seconds": 600.0, "strikes": strikes, "attempts": {"done": 4, "hung": 1}, **wrong}
    table = tables.faults(result)
    assert "the processor for protocol" in table
    assert "the processor for chaos" in table
    found = row(table, "by lot, 10 minutes")
    assert found[1:] == ["2 x driver killed, 3 x node killed", "4", "0", "0", "0", "0", "1"]


def test_what_ray_data_makes_of_it_stands_beside(result):
    result["ray_checkpointing"] = {
        "started again": {"ray": "2.60.0", "rows": 1000, "lost": 0, "doubled": 1000},
        "a row ends its worker": {
            "ray": "2.60.0", "rows": 1000, "lost": 100, "doubled": 0, "ended": False, "deaths": 30, "seconds": 60.0,
        },
    }  # fmt: skip
    table = tables.checkpointing(result)
    assert "the processor for ray_checkpointing" in table
    assert row(table, "started again")[1:] == ["0", "1,000", ""]
    assert row(table, "ends its worker")[1:] == ["100", "0", "had not ended after 60 s and 30 deaths"]
