"""One image at a time: seconds to the first token and to the last, from the decoded image on.

Measured by `benchmarks.engines` with the engines it has started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.machine import spread
from benchmarks.trials import Started
from benchmarks.work import Work

TRIES_PER_ROUND = 2


def one_at_a_time(rows: Sequence[tuple[str, Started]], work: Work, *, rounds: int) -> dict[str, Any]:
    """Let everyone answer one request alone, in turns, after one that warms up."""
    measured: dict[str, list[dict[str, float]]] = {setting: [] for setting, _ in rows}
    for number in range(-1, TRIES_PER_ROUND * rounds):
        for setting, engine in rows[:: 1 if number % 2 == 0 else -1]:
            timed = engine.answer_one(setting, work, number % work.requests)
            if number >= 0:
                measured[setting].append(timed)
    return {
        "runs": [
            {
                "name": setting,
                "engine": engine.contestant.name,
                **{figure: spread([each[figure] for each in measured[setting]]) for figure in measured[setting][0]},
            }
            for setting, engine in rows
        ]
    }
