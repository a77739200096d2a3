"""Boards are drawn from what a Prometheus answers over HTTP: every panel, readable, also where there is nothing."""

from __future__ import annotations

import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from monitoring.drawing import Page
from monitoring.expressions import expressions_of, panels_of, read_boards
from monitoring.preview import Window, draw_board, main, name_of, table_of
from monitoring.prometheus import Prometheus, RefusedError, Series
from monitoring.units import shown

sys.path.insert(0, str(Path(__file__).parent))
from fake_prometheus import fake_prometheus

BOARDS = {board["uid"]: board for board in read_boards()}
WINDOW = Window(end=1_800_000_000.0, seconds=3600, rate_interval="1m")


@cache
def drawn(uid: str) -> tuple[Page, tuple[str, ...]]:
    """The page of a board, and what a Prometheus was asked for it."""
    with fake_prometheus() as server:
        page = draw_board(BOARDS[uid], Prometheus(server.url), WINDOW)
    return page, tuple(each["query"] for each in server.asked)


def texts(page: Page) -> list[str]:
    """What stands on a page, the ticks of axes aside."""
    return [text.get_text().replace(r"\$", "$") for text in page.figure.axes[0].texts]


@pytest.mark.parametrize("uid", BOARDS)
def test_every_panel_is_drawn_and_everything_it_asks_is_asked(uid):
    board, (page, asked) = BOARDS[uid], drawn(uid)
    assert list(asked) == [WINDOW.fill(each.expr) for each in expressions_of(board)]
    assert not [query for query in asked if "$" in query]
    said = texts(page)
    assert {panel["title"] for panel in board["panels"]} <= set(said)
    assert not {"no data", "not measured"} & set(said)


@pytest.mark.parametrize("uid", BOARDS)
def test_no_text_lies_on_another_or_leaves_the_page(uid):
    page, _ = drawn(uid)
    placed = [(text.get_text(), text.get_window_extent()) for text in page.figure.axes[0].texts if text.get_text()]
    # A pixel of what is beside a letter is no part of it.
    touching = [
        (one, other)
        for (one, a), (other, b) in combinations(placed, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    assert touching == []
    width, height = page.figure.get_size_inches() * page.figure.dpi
    assert [text for text, box in placed if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height] == []


def test_panels_without_an_answer_say_so():
    board = BOARDS["skipvision-overview"]
    with fake_prometheus(empty=True) as server:
        said = texts(draw_board(board, Prometheus(server.url), WINDOW))
    for panel in panels_of(board):
        assert panel["fieldConfig"]["defaults"]["noValue"] in said
    assert "not measured" in said


def test_a_loss_is_shown_with_its_sign():
    assert "-$12.50" in texts(drawn("skipvision-cost")[0])


def test_an_expression_that_is_refused_is_named_with_what_was_said():
    with fake_prometheus(refuses="parse error") as server, pytest.raises(RefusedError, match=r"parse error.* for sum"):
        Prometheus(server.url).at("sum(", 1.0)


def test_the_command_writes_one_picture_for_each_board_that_is_asked_for(tmp_path, capsys):
    with fake_prometheus() as server:
        asked = ["--prometheus", server.url, "--minutes", "10", "--output", str(tmp_path / "new")]
        assert main([*asked, "--board", "skipvision-cost"]) == 0
    (picture,) = (tmp_path / "new").iterdir()
    assert picture.name == "skipvision-cost.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{picture}\n"
    assert {float(each["end"]) - float(each["start"]) for each in server.asked if "end" in each} == {600.0}


def test_a_table_joins_the_answers_of_its_columns_by_their_labels():
    panel = next(each for each in panels_of(BOARDS["skipvision-jobs"]) if each["type"] == "table")
    running = [
        Series(labels={"job_name": "b"}, times=(1,), values=(1,)),
        Series(labels={"job_name": "a"}, times=(1,), values=(0,)),
    ]
    done = [Series(labels={"job_name": "a"}, times=(1,), values=(0.5,))]
    table = table_of(panel, [running, done, *[[]] * (len(panel["targets"]) - 2)])
    assert table.headings[:3] == ["Job", "Attempt", "Done"]
    assert [row[:3] for row in table.rows] == [
        [("a", "text"), ("ended", "text"), ("50%", "text")],
        [("b", "text"), ("running", "green"), ("–", "text")],
    ]


def test_a_legend_names_its_series():
    series = Series(labels={"model": "zoo", "skip": "44/69"}, times=(), values=())
    assert name_of("{{model}} {{skip}}, target", series) == "zoo 44/69, target"
    assert name_of("__auto", series) == "zoo, 44/69"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (-1234.5, "currencyUSD", "-$1234.50"),
        (0.00421, "currencyUSD", "$0.0042"),
        (0.4567, "percentunit", "45.7%"),
        (5400, "s", "1.5 h"),
        (0.0123, "s", "12.3 ms"),
        (3 * 1024**3, "bytes", "3 GiB"),
        (2.5e13, "flops", "25 TFLOP/s"),
        (1_030_000, "short", "1.03 Mil"),
        (12.34, "suffix:images/s", "12.3 images/s"),
        (1_796_860_800_000, "dateTimeAsIso", "2026-12-10"),
        (float("nan"), "short", "–"),
        (0, "s", "0 s"),
    ],
)
def test_numbers_are_written_as_people_read_them(value, unit, text):
    assert shown(value, unit) == text


def test_every_unit_on_the_boards_can_be_written():
    units = {panel["fieldConfig"]["defaults"]["unit"] for board in BOARDS.values() for panel in panels_of(board)}
    assert all(shown(1.5, unit) for unit in units)
