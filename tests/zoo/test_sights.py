"""What the tower is taught is true."""

from __future__ import annotations

import random

import numpy as np
import pytest

from skipvision.exercises.drawing import Label, Sheet, Thing
from skipvision.exercises.words import BACKGROUNDS, COLOURS, SHAPES, TEXTURES
from skipvision.zoo.photograph import photograph
from skipvision.zoo.sights import CHARACTERS, CLASSES, COLOUR_NAMES, GRID, patch_truth
from skipvision.zoo.turns import MADE_IN_TURN, as_sheet, picture

WHITE = BACKGROUNDS["white"]
KINDS = tuple(dict.fromkeys(MADE_IN_TURN))


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_patches_know_what_covers_them_and_where_its_middle_is(stretch):
    for seed in range(60):
        rng = random.Random(seed)
        half = rng.uniform(0.022, 0.14)
        x, y = (rng.uniform(half, 1 - half) for _ in range(2))
        thing = Thing(rng.choice(SHAPES), rng.choice(COLOUR_NAMES), x, y, half)
        truth = patch_truth(Sheet(WHITE, (thing,)), stretch=stretch)
        rows, columns = truth["shape"].nonzero()
        assert len(rows) >= 1
        assert set(truth["shape"][rows, columns]) == {1 + SHAPES.index(thing.shape)}
        assert set(truth["colour"][rows, columns]) == {1 + COLOUR_NAMES.index(thing.colour)}
        assert set(truth["cell"][rows, columns]) == {1 + 3 * int(y * 3) + int(x * 3)}
        seen = [(at - 0.5) / stretch + 0.5 for at in (x, y)]
        np.testing.assert_allclose(truth.place[rows[0], columns[0]], [*seen, 2 * half / stretch], atol=1e-6)
        [[row, column]] = np.argwhere(truth["middle"])
        assert (row, column) == (int(seen[1] * GRID), int(seen[0] * GRID))


@pytest.mark.parametrize("stretch", [1.0, 1.25])
def test_the_patch_with_the_middle_of_a_thing_shows_the_colour_it_is_labelled_with(stretch):
    right = 0
    for seed in range(40):
        thing = Thing("square", random.Random(seed).choice(COLOUR_NAMES), 0.2 + seed * 0.015, 0.5, 0.06)
        pixels = photograph(Sheet(WHITE, (thing,)), random.Random(seed), stretch=stretch).astype(int)
        x, y = (int(((at - 0.5) / stretch + 0.5) * len(pixels)) for at in (thing.x, thing.y))
        nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - pixels[y, x]).sum())
        right += nearest == thing.colour
    assert right >= 38  # noise and light are part of the lesson


def test_of_two_things_in_a_patch_the_one_that_covers_more_of_it_counts():
    small, large = Thing("star", "red", 0.48, 0.53, 0.012), Thing("circle", "blue", 0.52, 0.53, 0.03)
    for things in ((small, large), (large, small)):
        truth = patch_truth(Sheet(WHITE, things))
        [row, column] = int(0.53 * GRID), int(0.52 * GRID)
        assert truth["shape"][row, column] == 1 + SHAPES.index("circle")
        assert truth["shape"][row, int(0.48 * GRID)] == 1 + SHAPES.index("star")


def test_characters_are_labelled_from_left_to_right_and_spell_their_word():
    truth = patch_truth(Sheet(WHITE, labels=(Label("K7XA", 0.4, 0.53, 0.13),)))
    row = int(0.53 * GRID)
    halves = np.stack([truth["left"][row], truth["right"][row]], axis=-1).flatten()
    assert "".join(CHARACTERS[value - 1] for value in dict.fromkeys(halves) if value) == "K7XA"
    written = truth["shape"] == 1 + len(SHAPES)
    assert written.any()
    for at, character in enumerate("K7XA"):
        assert set(truth[f"word{at}"][written]) == {1 + CHARACTERS.index(character)}
    assert not truth["word4"].any()
    assert truth["middle"].sum() == 4


def test_a_grid_of_characters_is_labelled_by_row_and_column():
    sheet = picture("needle", 10_000_003)
    truth = patch_truth(sheet)
    ys, xs = (sorted({*each}) for each in zip(*((label.y, label.x) for label in sheet.labels), strict=True))
    for label in sheet.labels:
        patch = int(label.y * GRID), int(label.x * GRID)
        assert (truth["row"][patch], truth["column"][patch]) == (1 + ys.index(label.y), 1 + xs.index(label.x))
    assert not patch_truth(picture("duplicates", 10_000_003))["row"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_drawn_is_labelled(kind):
    for seed in range(10_000_000, 10_000_030):
        sheet = as_sheet(picture(kind, seed))
        truth = patch_truth(sheet)
        assert set(np.unique(truth["background"])) == {[*BACKGROUNDS.values()].index(sheet.background)}
        assert set(np.unique(truth["texture"])) == {TEXTURES.index(sheet.texture)}
        drawn = {(1 + SHAPES.index(thing.shape), 1 + COLOUR_NAMES.index(thing.colour)) for thing in sheet.things}
        shown = {*zip(truth["shape"].flat, truth["colour"].flat, strict=True)} - {(0, 0)}
        assert {pair for pair in shown if pair[0] <= len(SHAPES)} == drawn
        for name, values in CLASSES.items():
            assert 0 <= truth[name].min() <= truth[name].max() < values


def test_a_scene_is_the_same_picture_as_a_sheet():
    scene = picture("scene", 10_000_005)
    difference = np.abs(np.asarray(scene.render(224), int) - np.asarray(as_sheet(scene).render(224), int))
    assert difference.mean() < 0.5  # the ink of sheets is not quite black
