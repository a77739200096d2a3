"""What the shipped models are asked is true, and held-out pictures are never among it."""

from __future__ import annotations

import pytest

from skipvision.exercises import exercises
from skipvision.exercises.drawing import Label, Sheet, Thing
from skipvision.exercises.exercise import named_objects
from skipvision.scenes import CAPTION_PROMPTS, scene
from skipvision.zoo.turns import EVERYTHING, MADE_IN_TURN, SCENE, everything, picture, questions_about

KINDS = tuple(dict.fromkeys(MADE_IN_TURN))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_question_asks_for_everything_and_the_others_are_those_of_the_picture(kind):
    for seed in range(10_000_000, 10_000_020):
        (first, answer), *others = questions_about(kind, seed, questions=3)
        if kind == SCENE:
            assert first in CAPTION_PROMPTS
            assert answer == scene(seed).caption()
        else:
            assert (first, answer) == (EVERYTHING, everything(picture(kind, seed)))
            asked = exercises(kind, seed, questions=3)
            assert others == [(each.question, each.answer) for each in asked]
        assert len(others) <= 3


def test_everything_is_named_band_by_band():
    things = (Thing("star", "red", 0.9, 0.3, 0.05), Thing("cross", "blue", 0.1, 0.32, 0.05),
              Thing("circle", "green", 0.5, 0.8, 0.05))  # fmt: skip
    assert everything(Sheet((255, 255, 255), things)) == "blue cross, red star, green circle"
    assert named_objects(everything(picture("list", 10_000_000))) == []  # sizes are another question


def test_words_are_named_with_their_colours_and_grids_row_by_row():
    red, green = (214, 39, 40), (34, 139, 60)
    words = (Label("AB", 0.7, 0.2, 0.1, red), Label("C", 0.2, 0.25, 0.1, green))
    assert everything(Sheet((255, 255, 255), labels=words)) == "C in green, AB in red"
    line = ((0.0, 0.5, 1.0, 0.5),)
    grid = tuple(Label(text, x, y, 0.1) for text, x, y in (("4", 0.7, 0.7), ("A", 0.2, 0.2), ("K", 0.7, 0.2)))
    assert everything(Sheet((255, 255, 255), labels=grid, lines=line)) == "AK, 4"
    page = tuple(Label(text, x, 0.5, 0.1) for text, x in (("TAX", 0.2), ("19", 0.7)))
    assert everything(Sheet((255, 255, 255), labels=page, lines=line)) == "TAX 19"


def test_every_kind_of_picture_is_drawn_about_as_often_and_scenes_three_times():
    assert {kind: MADE_IN_TURN.count(kind) for kind in KINDS} == {kind: 3 if kind == SCENE else 1 for kind in KINDS}
