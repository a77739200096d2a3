"""The shipped checkpoint is what its card says."""

from __future__ import annotations

import json

from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import scaled_paper_setting
from skipvision.zoo import path
from skipvision.zoo.card import evaluate
from skipvision.zoo.model_card import CARD_FILE, README_FILE, model_card
from skipvision.zoo.train import Recipe

CARD = json.loads((path() / CARD_FILE).read_text())


def test_the_readme_is_printed_from_the_card_and_the_recipe():
    assert (path() / README_FILE).read_text() == model_card(CARD, Recipe())


def test_the_checkpoint_is_small_and_loads_as_it_is_in_transformers():
    assert sum(file.stat().st_size for file in path().iterdir()) < 30e6
    model = LlavaForConditionalGeneration.from_pretrained(path())
    assert model.config.skip_vision["retain"] == scaled_paper_setting(256).retain
    assert CARD["carried_skip"] == "44/69"


def test_the_cards_figures_hold_on_a_part_of_the_held_out_scenes():
    part = evaluate(scenes=60)
    for setting in ("all_tokens", "skipping"):
        # More than three binomial deviations of 60 scenes; a broken engine or checkpoint falls to nearly nothing.
        assert abs(part[setting]["shapes_right"] - CARD[setting]["shapes_right"]) < 0.2
        assert abs(part[setting]["questions_right"] - CARD[setting]["questions_right"]) < 0.2
    assert part["blank_picture"]["shapes_right"] < 0.1
    assert CARD["blank_picture"]["shapes_right"] < 0.1
    assert abs(CARD["skipping"]["shapes_right"] - CARD["all_tokens"]["shapes_right"]) <= 0.03
