"""What the shipped models are asked: scenes and exercises, named by a kind and a seed, with questions and answers.

The first question about a picture asks for all of it: long answers teach seeing, short ones teach answering.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from skipvision.exercises import STRATA, exercises
from skipvision.exercises.drawing import Label, Sheet, Thing
from skipvision.exercises.exercise import Look, Looks, joined, looks_at
from skipvision.exercises.words import COLOURS
from skipvision.scenes import BACKGROUNDS as SCENE_BACKGROUNDS
from skipvision.scenes import CAPTION_PROMPTS, TEXT_HEIGHT, Scene, scene

SCENE = "scene"
MADE_IN_TURN = (SCENE, *[*STRATA][:3], SCENE, *[*STRATA][3:6], SCENE, *[*STRATA][6:])
"""Kinds of pictures, in the order in which they are drawn again and again."""
EVERYTHING = "Name everything in the picture."
"""Asked about exercises while the models learn. Scenes have captions."""


class Turn(NamedTuple):
    """A question with its answer, and where that is read."""

    question: str
    answer: str
    looks: Looks = ()


def picture(kind: str, seed: int) -> Scene | Sheet:
    """The picture that kind and seed name."""
    if kind == SCENE:
        return scene(seed)
    made = exercises(kind, seed, questions=1)[0].picture
    assert isinstance(made, Sheet)
    return made


def questions_about(kind: str, seed: int, *, questions: int) -> list[Turn]:
    """All of the picture first, then up to so many questions about it."""
    rng = random.Random(f"turns {kind} {seed}")
    if kind == SCENE:
        drawn = scene(seed)
        return [_captioned(drawn, rng), *[Turn(*each) for each in drawn.questions(rng, questions)]]
    asked = exercises(kind, seed, questions=max(1, questions))
    sheet = asked[0].picture
    assert isinstance(sheet, Sheet)
    return [everything(sheet), *[Turn(each.question, each.answer, each.looks) for each in asked[:questions]]]


def _captioned(drawn: Scene, rng: random.Random) -> Turn:
    caption, looks, at = drawn.caption(), list[Look](), 0
    for thing in drawn.in_reading_order():
        at = caption.index(thing.phrase, at)
        looks.append(Look(at, at + len(thing.phrase), ((thing.x, thing.y),)))
        at += len(thing.phrase)
    return Turn(rng.choice(CAPTION_PROMPTS), caption, (*looks,))


def everything(sheet: Sheet) -> Turn:
    """All things by colour and shape, or all that is written, from the top, each band from the left."""
    if sheet.things:
        things = sorted(sheet.things, key=lambda each: (int(each.y * 3), each.x))
        return Turn(EVERYTHING, *joined((thing.name, looks_at(thing.name, thing)) for thing in things))
    if not sheet.lines:  # words that stand where they like, each in a colour of its own
        words = sorted(sheet.labels, key=lambda label: (int(label.y * 3), label.x))
        return Turn(EVERYTHING, *joined(_word_in_colour(label) for label in words))
    rows = [sorted(row, key=lambda label: label.x) for row in _rows(sheet.labels)]
    return Turn(EVERYTHING, *joined(_row(row) for row in rows))


def _word_in_colour(label: Label) -> tuple[str, Looks]:
    in_colour = f" in {colour_of(label)}"
    return joined([(label.text, label.looks()), (in_colour, looks_at(in_colour, label))], between="")


def _row(labels: Sequence[Label]) -> tuple[str, Looks]:
    singles = all(len(label.text) == 1 for label in labels)
    return joined(((label.text, label.looks()) for label in labels), between="" if singles else " ")


def as_sheet(drawn: Scene | Sheet) -> Sheet:
    """The same things and words, as a sheet has them."""
    if isinstance(drawn, Sheet):
        return drawn
    things = tuple(Thing(each.shape, each.colour, each.x, each.y, each.half_width) for each in drawn.shapes)
    text = drawn.text
    labels = (Label(text.letters, text.x, text.y, TEXT_HEIGHT),) if text else ()
    return Sheet(SCENE_BACKGROUNDS[drawn.background], things, labels)


def colour_of(label: Label) -> str:
    """The name of a label's colour."""
    return next(name for name, colour in COLOURS.items() if colour == label.colour)


def _rows(labels: Iterable[Label]) -> list[list[Label]]:
    """Labels by the line they stand on, from the top."""
    ordered = sorted(labels, key=lambda label: label.y)
    return [[*row] for _, row in groupby(ordered, key=lambda label: label.y)]
