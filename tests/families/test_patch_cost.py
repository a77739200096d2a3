"""What a skipping model holds in memory and computes: what its plan says, no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipvision.families.patch import skipping
from skipvision.method.flops import DecoderShape, prefill_flops
from skipvision.method.plan import SkipConfig, plan_prompt
from skipvision.method.summary import SummaryPooling
from tests.families.patch_cases import (
    CLOSE,
    CONFIGS,
    FULL,
    VISUAL_TOKENS,
    as_batch,
    every_config,
    expected,
    in_order_of_ids,
    one_image_prompt,
)
from tests.method import reference
from tests.method.bare_llava import bare_llava, random_images, words


@every_config
@torch.no_grad()
def test_after_the_prompt_the_cache_holds_what_the_plan_says(
    model: Any, summary: SummaryPooling, config: SkipConfig
) -> None:
    ids = one_image_prompt()
    plan = plan_prompt(config, text_tokens=10, visual_tokens=[VISUAL_TOKENS])
    with skipping(model, config, summary):
        cache = model(input_ids=as_batch(ids), pixel_values=random_images(1), use_cache=True).past_key_values
    assert cache.get_seq_length() == plan.cached_tokens
    held = sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == 3 * 2 * 2 * plan.cached_tokens * 16 * 4  # layers, keys and values, heads, columns, dim, float32


@torch.no_grad()
def test_several_tokens_read_after_the_prompt_in_one_go_are_read_as_one_by_one(
    model: Any, summary: SummaryPooling
) -> None:
    ids, more, pixels = as_batch(one_image_prompt()), as_batch(words(4, seed=11)), random_images(1)
    with skipping(model, FULL, summary):
        cache = model(input_ids=ids, pixel_values=pixels, use_cache=True).past_key_values
        at_once = model(input_ids=more, past_key_values=cache, use_cache=True).logits
        cache = model(input_ids=ids, pixel_values=pixels, use_cache=True).past_key_values
        steps = [model(input_ids=t[None, None], past_key_values=cache, use_cache=True).logits for t in more[0]]
    torch.testing.assert_close(at_once, torch.cat(steps, dim=1), **CLOSE)


@pytest.mark.parametrize("name", ["6/8", "6/8:plain", "6/rest"])
@torch.no_grad()
def test_what_the_decoder_computes_is_what_the_plan_says_to_the_digit(
    model: Any, summary: SummaryPooling, name: str
) -> None:
    plan = plan_prompt(CONFIGS[name], text_tokens=10, visual_tokens=[VISUAL_TOKENS])
    shape = DecoderShape.from_config(model.config.text_config.to_dict())
    with skipping(model, CONFIGS[name], summary), FlopCounterMode(display=False) as counter:
        model(input_ids=as_batch(one_image_prompt()), pixel_values=random_images(1), use_cache=False)
    by_module = counter.get_flop_counts()
    (decoder,) = [name for name in by_module if name.endswith("language_model")]
    assert sum(by_module[decoder].values()) == prefill_flops(shape, plan, convention="dense")


@torch.no_grad()
def test_retained_are_the_tokens_that_the_cls_token_of_an_eager_encoder_looks_at() -> None:
    for layer in (-1, -2, 1, 2):
        model, ids, pixels = bare_llava(feature_layer=layer), one_image_prompt(), random_images(1)
        prompt = expected(model, ids, pixels, CONFIGS["6/8:plain"], SummaryPooling(48))
        plain = in_order_of_ids(prompt, reference.TwoStreams(model).read_prompt(prompt))
        with skipping(model, CONFIGS["6/8:plain"]):
            logits = model(input_ids=as_batch(ids), pixel_values=pixels).logits[0]
        torch.testing.assert_close(logits[list(plain)], torch.stack(list(plain.values())), **CLOSE)


@torch.no_grad()
def test_the_encoder_never_leaves_its_own_attention_kernel(summary: SummaryPooling) -> None:
    model, seen = bare_llava(attention="sdpa"), []

    def note(module: Any, _args: Any, output: Any) -> None:
        seen.append((module.config._attn_implementation, output[1]))

    for layer in model.model.vision_tower.encoder.layers:
        layer.self_attn.register_forward_hook(note)
    with skipping(model, FULL, summary):
        model(input_ids=as_batch(one_image_prompt()), pixel_values=random_images(1))
    assert seen == [("sdpa", None)] * len(seen)
    assert len(seen) >= 2
