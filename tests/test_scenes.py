"""Rendered scenes: named by seed, and true."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from skipvision.scenes import BACKGROUNDS, COLOURS, NUMBERS, named_shapes, scene

SEEDS = range(200)


def test_a_seed_always_gives_the_same_picture():
    assert scene(7) == scene(7)
    assert np.array_equal(np.asarray(scene(7).render(96)), np.asarray(scene(7).render(96)))
    assert len({scene(seed) for seed in SEEDS}) == len(SEEDS)


def test_a_caption_names_exactly_the_shapes_of_its_scene():
    for seed in SEEDS:
        drawn = scene(seed)
        assert named_shapes(drawn.caption()) == sorted((s.colour, s.shape) for s in drawn.shapes)
        assert (drawn.text is not None) == ("the text" in drawn.caption())


def test_a_grade_counts_repeats_and_inventions():
    assert named_shapes("a small red circle and a large red circle") == [("red", "circle")] * 2
    assert named_shapes("a small red circle") != named_shapes("a small red circle and a large red circle")
    assert named_shapes("nothing at all") == []


def test_every_shape_is_seen_in_its_colour_at_its_place():
    side = 200
    for seed in SEEDS[:40]:
        drawn = scene(seed)
        pixels = np.asarray(drawn.render(side))
        assert tuple(pixels[0, 0]) == BACKGROUNDS[drawn.background] or drawn.shapes[0].cell == (0, 0)
        for shape in drawn.shapes:
            assert tuple(pixels[int(shape.y * side), int(shape.x * side)]) == COLOURS[shape.colour]


def test_nothing_overlaps_and_nothing_leaves_the_picture():
    for seed in SEEDS:
        drawn = scene(seed, shapes=(6,), text_share=1.0)
        cells = [thing.cell for thing in (*drawn.shapes, drawn.text)]
        assert len(set(cells)) == 7
        for shape in drawn.shapes:
            row, column = shape.cell
            assert column / 3 < shape.x - shape.half_width < shape.x + shape.half_width < (column + 1) / 3
            assert row / 3 < shape.y - shape.half_width < shape.y + shape.half_width < (row + 1) / 3


@pytest.mark.parametrize(
    ("pattern", "truth"),
    [
        (r"How many shapes are there\?", lambda s, _: NUMBERS[len(s.shapes)]),
        (r"What text is written\?", lambda s, _: s.text.letters if s.text else "none"),
        (r"What colour is the background\?", lambda s, _: s.background),
        (
            r"Is there an? (\w+) (\w+)\?",
            lambda s, m: "yes" if any((x.colour, x.shape) == (m[1], m[2]) for x in s.shapes) else "no",
        ),
        (r"What colour is the (?!background)(\w+)\?", lambda s, m: next(x.colour for x in s.shapes if x.shape == m[1])),
    ],
)
def test_answers_are_true(pattern, truth):
    asked = 0
    for seed in SEEDS:
        drawn = scene(seed)
        for question, answer in drawn.questions(random.Random(seed), 8):
            if found := re.fullmatch(pattern, question):
                assert answer == truth(drawn, found), (question, drawn)
                asked += 1
    assert asked > 20
