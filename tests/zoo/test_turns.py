"""What the shipped models are asked is true, and held-out pictures are never among it."""

from __future__ import annotations

import pytest

from skipvision.exercises import exercises
from skipvision.exercises.drawing import Label, Sheet, Thing
from skipvision.exercises.exercise import named_objects
from skipvision.scenes import CAPTION_PROMPTS, scene
from skipvision.zoo.turns import EVERYTHING, MADE_IN_TURN, SCENE, as_sheet, everything, picture, questions_about

KINDS = tuple(dict.fromkeys(MADE_IN_TURN))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_question_asks_for_everything_and_the_others_are_those_of_the_picture(kind):
    for seed in range(10_000_000, 10_000_020):
        first, *others = questions_about(kind, seed, questions=3)
        if kind == SCENE:
            assert first.question in CAPTION_PROMPTS
            assert first.answer == scene(seed).caption()
        else:
            assert first == everything(picture(kind, seed))
            assert first.question == EVERYTHING
            asked = exercises(kind, seed, questions=3)
            assert others == [(each.question, each.answer, each.looks) for each in asked]
        assert len(others) <= 3


def test_everything_is_named_band_by_band():
    things = (Thing("star", "red", 0.9, 0.3, 0.05), Thing("cross", "blue", 0.1, 0.32, 0.05),
              Thing("circle", "green", 0.5, 0.8, 0.05))  # fmt: skip
    assert everything(Sheet((255, 255, 255), things)).answer == "blue cross, red star, green circle"
    assert named_objects(everything(picture("list", 10_000_000)).answer) == []  # sizes are another question


def test_words_are_named_with_their_colours_and_grids_row_by_row():
    red, green = (214, 39, 40), (34, 139, 60)
    words = (Label("AB", 0.7, 0.2, 0.1, red), Label("C", 0.2, 0.25, 0.1, green))
    assert everything(Sheet((255, 255, 255), labels=words)).answer == "C in green, AB in red"
    line = ((0.0, 0.5, 1.0, 0.5),)
    grid = tuple(Label(text, x, y, 0.1) for text, x, y in (("4", 0.7, 0.7), ("A", 0.2, 0.2), ("K", 0.7, 0.2)))
    assert everything(Sheet((255, 255, 255), labels=grid, lines=line)).answer == "AK, 4"
    page = tuple(Label(text, x, 0.5, 0.1) for text, x in (("TAX", 0.2), ("19", 0.7)))
    assert everything(Sheet((255, 255, 255), labels=page, lines=line)).answer == "TAX 19"


def test_every_kind_of_picture_is_drawn_about_as_often_and_scenes_three_times():
    assert {kind: MADE_IN_TURN.count(kind) for kind in KINDS} == {kind: 3 if kind == SCENE else 1 for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_an_answer_is_read_at_something_that_is_there(kind):
    for seed in range(10_000_000, 10_000_010):
        sheet = as_sheet(picture(kind, seed))
        there = [(each.x, each.y) for each in (*sheet.things, *sheet.labels)]
        for turn in questions_about(kind, seed, questions=12):
            for look in turn.looks:
                assert turn.answer[look.start : look.stop].strip()
                for x, y in look.places:  # the characters of a word stand beside its middle, on its line
                    assert min(abs(x - at) for at, height in there if height == y) < 0.25


def test_a_written_answer_is_read_character_by_character():
    page = picture("duplicates", 10_000_000)
    described = everything(page)
    written = [label.text for label in page.labels]
    assert "".join(described.answer[look.start : look.stop] for look in described.looks) == "".join(written)
