"""Requests whose images are reduced without training: what the decoder reads, alone and in mixed company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.errors import ConfigError, InputError
from skipvision.families import Family, load_family, skipping
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture
from tests.tiny_llava import build_tiny_llava

REDUCTIONS = ("uniform:4", "random:5", "saliency:6", "resize:9")
SAMPLING = Sampling(max_tokens=8, ignore_eos=True)


def ask(engine: Engine, seed: int, skip: str) -> Request:
    pixels = engine.prepare(picture(seed))
    return Request(prompt="describe the picture", images=(pixels,), skip=SkipConfig.parse(skip), sampling=SAMPLING)


@pytest.mark.parametrize("skip", REDUCTIONS)
def test_a_reduced_request_is_counted_by_fate_and_cached_as_planned(family: Family, skip: str) -> None:
    engine = Engine(family)
    [answer] = engine.answer([ask(engine, 1, skip)])
    kept = int(skip.partition(":")[2])
    plan = answer.plan
    assert (plan.retained_tokens, plan.dropped_tokens, plan.visual_tokens) == (kept, 16 - kept, 16)
    assert plan.prompt_tokens == plan.cached_tokens == plan.text_tokens + kept


def test_requests_of_all_reductions_side_by_side_get_what_they_get_alone(family: Family) -> None:
    skips = (*REDUCTIONS, "off", CARRIED.describe())
    engine = Engine(family)
    together = engine.answer([ask(engine, seed, skip) for seed in (1, 2) for skip in skips])
    alone = [Engine(family).answer([ask(engine, seed, skip)])[0] for seed in (1, 2) for skip in skips]
    assert [answer.output_ids for answer in together] == [answer.output_ids for answer in alone]
    assert len({answer.output_ids for answer in together}) > len(skips)


@pytest.mark.parametrize("reducer", ["uniform", "random", "saliency", "resize"])
def test_a_reduction_that_keeps_everything_changes_nothing(family: Family, reducer: str) -> None:
    engine = Engine(family)
    reduced, whole = engine.answer([ask(engine, 3, f"{reducer}:16"), ask(engine, 3, "off")])
    assert reduced.output_ids == whole.output_ids


@pytest.mark.parametrize("skip", ["uniform:4", "saliency:6"])
@torch.no_grad()
def test_a_live_model_under_the_same_reduction_says_the_same(
    family: Family, stock: LlavaForConditionalGeneration, stock_inputs: Callable[..., Any], skip: str
) -> None:
    engine = Engine(family)
    [answer] = engine.answer([ask(engine, 4, skip)])
    inputs = stock_inputs("describe the picture", [picture(4)])
    with skipping(stock, SkipConfig.parse(skip)):
        output = stock.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert list(answer.output_ids) == output[0, inputs["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def test_resize_shows_the_tower_a_smaller_picture_with_interpolated_positions(
    family: Family, stock: LlavaForConditionalGeneration
) -> None:
    plain = np.full((32, 32, 3), (200, 30, 90), np.uint8)  # of one colour, so that every way to resize agrees
    pixels = torch.from_numpy(family.preparer.prepare(plain))[None]
    encoded = family.encode(pixels, side_tokens=2)

    scale, shift = family._scale, family._shift  # type: ignore[attr-defined]
    small = (pixels[:, :, :16, :16].float() * scale + shift).to(family.dtype)
    hidden = stock.model.vision_tower(small, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    expected = stock.model.multi_modal_projector(hidden[-2][:, 1:])
    torch.testing.assert_close(encoded.features[0], expected[0])


@pytest.mark.parametrize("skip", ["random:4", "resize:4"])
def test_a_live_model_refuses_what_needs_the_pictures(stock: LlavaForConditionalGeneration, skip: str) -> None:
    with pytest.raises(ConfigError, match=f"{skip} needs the pictures"), skipping(stock, SkipConfig.parse(skip)):
        pass


def test_a_model_that_cuts_tiles_refuses_resize_and_takes_the_others(tmp_path: Path) -> None:
    tiled = load_family(build_tiny_llava(tmp_path, tiled=True), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="use uniform:9 or saliency:9"):
        Engine(tiled, skip=SkipConfig.parse("resize:9"))
    engine = Engine(tiled)
    with pytest.raises(InputError, match="uniform:9 or saliency:9") as refused:
        engine.add(ask(engine, 5, "resize:9"))
    assert refused.value.code == "skip_does_not_fit"
    for answer in engine.answer([ask(engine, 5, skip) for skip in ("uniform:9", "random:9", "saliency:9")]):
        assert answer.plan.retained_tokens == 9


def test_the_same_image_under_two_sizes_is_encoded_at_each_and_remembered(family: Family) -> None:
    engine = Engine(family)
    requests = [ask(engine, 6, skip) for skip in ("resize:4", "resize:9", "off")]
    first = [answer.output_ids for answer in engine.answer(requests)]
    again = [
        answer.output_ids
        for answer in engine.answer([replace(r, request_id=f"again {i}") for i, r in enumerate(requests)])
    ]
    assert first == again
    assert engine.stats().vision_cache_hits == 3
