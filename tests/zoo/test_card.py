"""The shipped checkpoints are what their cards say."""

from __future__ import annotations

import json

import pytest
from transformers import LlavaForConditionalGeneration

from skipvision.exercises import STRATA
from skipvision.families.checkpoint import SHIPPED_MODELS
from skipvision.zoo.card import measure
from skipvision.zoo.model_card import CARD_FILE, README_FILE, model_card
from skipvision.zoo.train import Recipe

CARDS = {name: json.loads((folder / CARD_FILE).read_text()) for name, folder in SHIPPED_MODELS.items()}
CARRIED = {"zoo": "44/69", "zoo-plain": "off"}


@pytest.fixture(params=[*SHIPPED_MODELS])
def name(request):
    return request.param


def test_the_readme_is_printed_from_the_card_and_the_recipe(name):
    assert (SHIPPED_MODELS[name] / README_FILE).read_text() == model_card(CARDS[name], Recipe())


def test_the_checkpoint_is_small_and_loads_as_it_is_in_transformers(name):
    assert sum(file.stat().st_size for file in SHIPPED_MODELS[name].iterdir()) < 30e6
    model = LlavaForConditionalGeneration.from_pretrained(SHIPPED_MODELS[name])
    carries = getattr(model.config, "skip_vision", None)
    assert (carries and carries["retain"]) == (44 if name == "zoo" else None)
    assert CARDS[name]["carried_skip"] == CARRIED[name]


def test_the_cards_figures_hold_on_a_part_of_the_held_out_pictures(name):
    card = CARDS[name]
    part = measure(name, scenes=40, exercises=12)
    assert part["settings"].keys() == card["settings"].keys()
    for setting, shares in card["settings"].items():
        for kinds in (["scene captions"], ["scene questions"], [*STRATA]):
            # More than three binomial deviations of forty answers; a broken engine falls to nearly nothing.
            said, true = (
                sum(each[kind] for kind in kinds) / len(kinds) for each in (part["settings"][setting], shares)
            )
            assert abs(said - true) < 0.22, (setting, kinds)


def test_what_is_right_is_seen_and_not_guessed(name):
    *seeing, blank = CARDS[name]["settings"].values()
    for shares in seeing:
        assert shares["scene captions"] > 0.7
        assert blank["scene captions"] < 0.1
        for stratum in STRATA:
            assert shares[stratum] > blank[stratum] + 0.1, stratum
