"""The recipe: stages are kept, a stopped run goes on, and what comes out is a checkpoint like any other."""

from __future__ import annotations

import pytest
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.scenes import scene
from skipvision.zoo import lessons, tower
from skipvision.zoo import train as recipe
from skipvision.zoo.train import ReadingRound, Recipe, train

TINY = Recipe(
    batch=2,
    tower_steps=1,
    rounds=(
        ReadingRound(name="first", steps=1, peak=1e-3, skip_share=0.0),
        ReadingRound(name="second", steps=1, peak=1e-3, skip_share=1.0, questions=1),
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    train(folder / "work", folder / "model", TINY)
    return folder


def test_the_folder_is_an_ordinary_checkpoint_that_carries_its_setting(made):
    stock = LlavaForConditionalGeneration.from_pretrained(made / "model")
    assert stock.config.skip_vision == {
        "retain": 44,
        "merge_skipped_to": 69,
        "summarise": True,
        "forget_skipped": True,
    }
    engine = Engine.load(made / "model")
    assert engine.skip.describe() == "44/69"
    (answer,) = engine.answer([Request(prompt="Describe the image.", sampling=Sampling(max_tokens=3))])
    assert answer.output_ids
    engine.close()


def test_a_run_that_was_stopped_goes_on_with_the_stage_it_was_in(made, monkeypatch):
    finished = (made / "model" / "model.safetensors").read_bytes()
    (made / "work" / "second.safetensors").unlink()
    taught = []
    teach = recipe.teach
    monkeypatch.setattr(recipe, "teach", lambda *a, **k: (taught.append(k["name"]), teach(*a, **k)))
    monkeypatch.setattr(recipe, "train_tower", lambda *a, **k: pytest.fail("the tower was finished"))
    train(made / "work", made / "again", TINY)
    assert taught == ["second"]
    assert (made / "again" / "model.safetensors").read_bytes() == finished


def test_held_out_seeds_are_never_drawn(tmp_path, monkeypatch):
    drawn = []
    for module in (tower, lessons):
        monkeypatch.setattr(module, "scene", lambda seed, **wanted: (drawn.append(seed), scene(seed, **wanted))[1])
    train(tmp_path / "work", tmp_path / "model", TINY)
    assert len(set(drawn)) == 3 * TINY.batch
    assert min(drawn) >= 10_000_000
