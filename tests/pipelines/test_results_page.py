"""The page about results says what the code writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

from pipelines.result_rows import RESULT_COLUMNS
from pipelines.results import FORMATS
from skipvision.commands.results import results
from skipvision.metrics.catalogue import ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
ROW = re.compile(
    r"^\| `(\w+)` \| (\w+) \| (\w*) ?\| .+ \| (never|where there is an? (?:error|answer)) \|$", re.MULTILINE
)


def test_the_page_names_every_result_column_in_order_with_its_type():
    columns = [(name, kind.replace("float64", "double")) for name, kind, _, _ in ROW.findall(PAGE)]
    assert columns == [(field.name, str(field.type)) for field in RESULT_COLUMNS]


def test_every_count_of_tokens_has_its_unit():
    units = {name: unit for name, _, unit, _ in ROW.findall(PAGE)}
    assert {name for name, unit in units.items() if unit == "tokens"} == {
        name for name in RESULT_COLUMNS.names if name.endswith("_tokens")
    }


def test_the_page_and_the_command_know_every_format():
    assert tuple(re.findall(r"`skipvision results DIR --to (\w+)`", PAGE)) == (*FORMATS, "openai")
    assert get_args(get_type_hints(results)["to"]) == (*FORMATS, "openai")


def test_the_page_points_to_the_metric_that_lists_the_codes():
    assert f"`{ERRORS.name}" in PAGE
