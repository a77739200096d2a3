"""The tower learns what is told of patches, and to look where things are."""

from __future__ import annotations

import random

import numpy as np
import torch
from transformers import CLIPVisionModel

from skipvision.families.clip import run_tower
from skipvision.zoo.photograph import normalise, photograph
from skipvision.zoo.schedule import Schedule
from skipvision.zoo.shape import tower_config
from skipvision.zoo.sights import CLASSES, patch_truth
from skipvision.zoo.tower import SightLessons, TowerStage
from skipvision.zoo.turns import MADE_IN_TURN, as_sheet, picture


def test_the_gaze_is_drawn_to_what_is_there():
    torch.manual_seed(0)
    tower = CLIPVisionModel(tower_config())
    drawn = [picture(kind, seed) for seed, kind in enumerate(MADE_IN_TURN)]
    pixels = normalise(torch.from_numpy(np.stack([photograph(one, random.Random(0)) for one in drawn])))
    middles = torch.from_numpy(np.stack([patch_truth(as_sheet(one))["middle"] for one in drawn])).flatten(1)
    before = share_on(saliency(tower, pixels), middles)
    stage = TowerStage(tower, kinds=MADE_IN_TURN, batch=4, first_seed=12_000_000)
    schedule = Schedule(stage.module, peak=2e-2, steps=25, name="tower")
    for number in range(25):
        told = stage.step(number, schedule)
    assert share_on(saliency(tower, pixels), middles) > 1.05 * before
    assert {*CLASSES} < {*told}


def test_every_head_and_every_layer_learns():
    torch.manual_seed(0)
    lessons = SightLessons(CLIPVisionModel(tower_config()))
    drawn = [picture(kind, 10_000_000) for kind in ("text", "counting", "needle")]
    pixels = torch.from_numpy(np.stack([photograph(one, random.Random(1)) for one in drawn]))
    loss, _ = lessons(pixels, [patch_truth(as_sheet(one)) for one in drawn])
    loss.backward()
    assert torch.isfinite(loss)
    assert not [name for name, parameter in lessons.named_parameters() if parameter.grad is None]


def saliency(tower, pixels):
    with torch.no_grad():
        return run_tower(tower, pixels, layers=tower.config.num_hidden_layers)[1]


def share_on(saliency, wanted):
    return (saliency * wanted).sum() / saliency.sum()
