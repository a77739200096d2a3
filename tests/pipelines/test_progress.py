"""What a person sees while a job runs."""

from __future__ import annotations

import io
import re
import sys

from pipelines import progress
from pipelines.progress import shown


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with shown(total_rows=1200, done_rows=200) as show:
        show(700)
        show(1200)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"700 of 1,200 rows, [\d,.]+ rows/s, 0:00:00 left", lines[0])
    assert lines[1].startswith("1,200 of 1,200 rows")


def test_lines_do_not_come_faster_than_one_can_read(capsys):
    with shown(total_rows=100, done_rows=0) as show:
        for rows in range(1, 100):
            show(rows)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar_with_speed_and_time_left(monkeypatch):
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with shown(total_rows=50, done_rows=10) as show:
        show(20)
        show(50)
    assert "50/50" in terminal.getvalue()
    assert "rows/s" in terminal.getvalue()
