"""The recipe: stages are kept, a stopped run goes on, and what comes out are two checkpoints like any other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.families.checkpoint import carried_skip
from skipvision.zoo import lessons, tower
from skipvision.zoo import train as recipe
from skipvision.zoo.train import SECONDS_FILE, Recipe, Round, TowerRound, train
from skipvision.zoo.turns import picture

_ROUND = Round(name="all", steps=1, peak=1e-3, mix=(("off", 1.0),), questions=1, first_seed=20_000_000, batch=2)
TINY = Recipe(
    together=(
        TowerRound(name="tower", steps=1, peak=1e-3, first_seed=10_000_000, batch=2),
        replace(_ROUND, name="salient", mix=(("saliency:80", 1.0),), looking=1.0),
        _ROUND,
    ),
    plain=(replace(_ROUND, name="plain", first_seed=30_000_000),),
    skipping=(replace(_ROUND, name="skipping", first_seed=30_000_000, steps=2, mix=(("44/69", 0.5), ("28/69", 0.5))),),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    train(folder / "work", folder / "plain", folder / "skipping", TINY)
    return folder


def test_both_folders_are_ordinary_checkpoints_and_one_carries_its_setting(made):
    plain, skipping = (LlavaForConditionalGeneration.from_pretrained(made / name) for name in ("plain", "skipping"))
    assert carried_skip(plain.config).is_off
    assert carried_skip(skipping.config).describe() == "44/69"
    assert not (made / "plain" / "skip_vision.safetensors").exists()
    engine = Engine.load(made / "skipping")
    assert engine.skip.describe() == "44/69"
    (answer,) = engine.answer([Request(prompt="Describe the image.", sampling=Sampling(max_tokens=3))])
    assert answer.output_ids
    engine.close()


def test_the_two_have_one_tower_and_went_apart_afterwards(made):
    plain, skipping = (load_file(made / name / "model.safetensors") for name in ("plain", "skipping"))
    assert plain.keys() == skipping.keys()
    for name, weights in plain.items():
        assert ("vision_tower" in name) <= weights.equal(skipping[name])
    assert not plain["multi_modal_projector.linear_1.weight"].equal(skipping["multi_modal_projector.linear_1.weight"])


def test_every_stage_says_what_it_took(made):
    seconds = json.loads((made / "work" / SECONDS_FILE).read_text())
    assert {*seconds} == {"tower", "salient", "all", "plain", "skipping"}
    assert all(spent > 0 for spent in seconds.values())


def test_a_run_that_was_stopped_goes_on_with_the_stage_it_was_in(made, monkeypatch):
    finished = (made / "skipping" / "model.safetensors").read_bytes()
    (made / "work" / "skipping.safetensors").unlink()
    taught = []
    monkeypatch.setattr(recipe, "TowerStage", lambda *a, **k: pytest.fail("the tower was finished"))
    stage = recipe.LessonStage
    monkeypatch.setattr(recipe, "LessonStage", lambda *a, **k: (taught.append(a[1]), stage(*a, **k))[1])
    train(made / "work", made / "plain again", made / "again", TINY)
    assert taught == [TINY.skipping[0].mix]
    assert (made / "again" / "model.safetensors").read_bytes() == finished


def test_a_run_that_was_stopped_in_a_stage_goes_on_in_its_middle(made, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    for kept in (made / "work").glob("*.safetensors"):
        if kept.stem != "skipping":
            (work / kept.name).write_bytes(kept.read_bytes())
    monkeypatch.setattr(recipe, "SAVE_EVERY", 1)
    numbers = []
    step = recipe.LessonStage.step

    def stopped(self, number, schedule):
        numbers.append(number)
        if len(numbers) == 2:
            raise KeyboardInterrupt
        return step(self, number, schedule)

    monkeypatch.setattr(recipe.LessonStage, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(work, tmp_path / "plain", tmp_path / "skipping", TINY)
    train(work, tmp_path / "plain", tmp_path / "skipping", TINY)
    assert numbers == [0, 1, 1]
    once, twice = (folder / "skipping" / "model.safetensors" for folder in (made, tmp_path))
    assert twice.read_bytes() == once.read_bytes()
    assert not [*work.glob("*.going")]


def test_held_out_seeds_are_never_drawn(tmp_path, monkeypatch):
    drawn = []
    for module in (tower, lessons):
        monkeypatch.setattr(module, "picture", lambda kind, seed: (drawn.append(seed), picture(kind, seed))[1])
    train(tmp_path / "work", tmp_path / "plain", tmp_path / "skipping", TINY)
    assert min(drawn) >= 10_000_000
    rounds = [*Recipe().together, *Recipe().plain, *Recipe().skipping]
    assert min(each.first_seed for each in rounds) >= 10_000_000


def test_the_twins_are_taught_the_same_lessons_in_as_many_steps():
    for plain, skipping in zip(Recipe().plain, Recipe().skipping, strict=True):
        assert replace(skipping, name=plain.name, mix=plain.mix) == plain
