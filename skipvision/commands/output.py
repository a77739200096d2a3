"""How commands answer: a table for people, or the same numbers as JSON for programs; messages go to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout, plain, whatever the terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout, its first column to the left and the numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def say(message: str) -> None:
    """Write a message for the person at the terminal to stderr."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
