"""What the limits are held against is counted right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from benchmarks.limits import decode_bytes, decode_kv_bytes, decode_weights, encoder_flops, executed_prefill_flops
from skipvision.method.flops import DecoderShape, prefill_flops
from skipvision.method.plan import SkipConfig, plan_prompt

SHAPE = DecoderShape(hidden=64, ffn_hidden=96, layers=3, heads=4, kv_heads=2, head_dim=16, vocab=50)


def test_the_encoder_formula_agrees_with_torch(tiny_config):
    config = tiny_config
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    pixels = torch.rand(1, 3, config.vision_config.image_size, config.vision_config.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.get_image_features(pixels)
    assert encoder_flops(config, layers=config.vision_config.num_hidden_layers) == counter.get_total_flops()


@pytest.mark.parametrize("skip", ["off", "4/6", "4/6:plain"])
def test_executed_is_all_layers_but_the_last_and_of_that_one_row_and_everyones_keys_and_values(skip):
    plan = plan_prompt(SkipConfig.parse(skip), text_tokens=9, visual_tokens=(16, 16))
    keys_and_values = plan.prompt_tokens * 4 * SHAPE.hidden * SHAPE.kv_width
    last_row = 4 * SHAPE.hidden * SHAPE.q_width + 4 * SHAPE.q_width * plan.prompt_tokens
    last_row += 6 * SHAPE.hidden * SHAPE.ffn_hidden
    others = prefill_flops(replace(SHAPE, layers=SHAPE.layers - 1), plan)
    assert executed_prefill_flops(SHAPE, plan) == others + keys_and_values + last_row


def test_a_decode_step_reads_every_weight_of_the_decoder_but_norms_and_embeddings(tiny_config):
    model = LlavaForConditionalGeneration(tiny_config)
    decoder = model.model.language_model
    matrices = [each for each in decoder.layers.parameters() if each.ndim == 2]
    shape = DecoderShape.from_config(tiny_config.text_config.to_dict())
    assert decode_weights(shape) == sum(each.numel() for each in matrices) + model.lm_head.weight.numel()


def test_each_decode_step_reads_the_cache_and_what_was_generated_so_far():
    per_token = SHAPE.layers * 2 * SHAPE.kv_width * 4
    read = decode_kv_bytes(SHAPE, cached_tokens=10, output_tokens=4, bytes_per_value=4)
    assert read == per_token * (11 + 12 + 13)
    assert decode_kv_bytes(SHAPE, cached_tokens=10, output_tokens=1, bytes_per_value=4) == 0


def test_weights_are_read_once_for_all_that_run_together():
    work = {"decode_steps": 31, "decode_weight_bytes": 1000, "decode_kv_bytes": 7}
    assert decode_bytes(work, requests=32, max_running=32) == 31 * 1000 + 32 * 7
    assert decode_bytes(work, requests=33, max_running=32) == 2 * 31 * 1000 + 33 * 7
