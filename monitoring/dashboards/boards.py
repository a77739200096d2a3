"""All boards, in the order in which they are read."""

from __future__ import annotations

from monitoring.dashboards import cost, engine, jobs, overview, service, skipping
from monitoring.dashboards.board import Board, text_of

BOARDS: tuple[Board, ...] = (
    overview.BOARD,
    service.BOARD,
    jobs.BOARD,
    skipping.BOARD,
    engine.BOARD,
    cost.BOARD,
)


def generated_texts() -> dict[str, str]:
    """The JSON of every board, by uid."""
    return {board.uid: text_of(board) for board in BOARDS}
