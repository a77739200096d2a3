"""What the tower is taught is true."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from skipvision.families.clip import run_tower
from skipvision.scenes import BACKGROUNDS, COLOURS, LETTERS, SHAPES, scene
from skipvision.zoo.shape import tower_config
from skipvision.zoo.tower import COLOUR_NAMES, GRID, SightLessons, normalise, patch_truth, photograph, train_tower


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_patches_point_at_the_centre_of_what_covers_them(stretch):
    for seed in range(30):
        drawn = scene(seed, shapes=(1,), text_share=0.0)
        (shape,) = drawn.shapes
        truth = patch_truth(drawn, stretch=stretch)
        rows, columns = truth.shape.nonzero()
        assert len(rows)
        assert set(truth.shape[rows, columns]) == {1 + SHAPES.index(shape.shape)}
        assert set(truth.colour[rows, columns]) == {1 + COLOUR_NAMES.index(shape.colour)}
        centre = ((np.stack([columns, rows], -1) + 0.5) / GRID - 0.5) * stretch + 0.5
        np.testing.assert_allclose(centre + truth.offset[rows, columns], [(shape.x, shape.y)] * len(rows), atol=1e-5)


@pytest.mark.parametrize("stretch", [1.0, 1.25])
def test_the_patch_at_a_centre_shows_the_colour_it_is_labelled_with(stretch):
    right = 0
    for seed in range(40):
        drawn = scene(seed, shapes=(1,), text_share=0.0)
        (shape,) = drawn.shapes
        pixels = photograph(drawn, random.Random(seed), stretch=stretch).astype(int)
        x, y = (int((((at - 0.5) / stretch) + 0.5) * len(pixels)) for at in (shape.x, shape.y))
        known = {**COLOURS, **BACKGROUNDS}
        nearest = min(known, key=lambda name: np.abs(np.array(known[name]) - pixels[y, x]).sum())
        right += nearest == shape.colour
    assert right >= 38  # noise and light are part of the lesson


def test_letters_are_labelled_from_left_to_right():
    drawn = scene(1, text_share=1.0)
    truth = patch_truth(drawn)
    seen = [index for index in dict.fromkeys(truth.letter.max(axis=0)) if index]
    assert "".join(LETTERS[index - 1] for index in seen) == drawn.text.letters


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_every_covered_patch_knows_the_cell_of_its_object(stretch):
    for seed in range(30):
        drawn = scene(seed, text_share=1.0)
        truth = patch_truth(drawn, stretch=stretch)
        assert ((truth.cell > 0) == (truth.shape > 0)).all()
        assert set(truth.cell[truth.cell > 0]) == {1 + 3 * row + column for row, column in cells(drawn)}


def test_the_gaze_is_drawn_to_what_is_there():
    torch.manual_seed(0)
    tower = CLIPVisionModel(tower_config())
    drawn = [scene(seed) for seed in range(8)]
    pixels = normalise(torch.from_numpy(np.stack([photograph(one, random.Random(0)) for one in drawn])))
    covered = torch.from_numpy(np.stack([patch_truth(one).shape > 0 for one in drawn])).flatten(1)
    before = saliency(tower, pixels)
    train_tower(SightLessons(tower), steps=20, batch=4, peak=2e-2, first_seed=12_000_000, seed=0)
    assert share_on(saliency(tower, pixels), covered) > 1.05 * share_on(before, covered)


def cells(drawn):
    return [thing.cell for thing in (*drawn.shapes, drawn.text)]


def saliency(tower, pixels):
    with torch.no_grad():
        return run_tower(tower, pixels, layers=tower.config.num_hidden_layers)[1]


def share_on(saliency, covered):
    return (saliency * covered).sum() / saliency.sum()
