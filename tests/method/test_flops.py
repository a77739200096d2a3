"""Operations and bytes: against a count by hand, and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from skipvision.errors import ConfigError
from skipvision.method.flops import DecoderShape, decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipConfig, SkipPlan, plan_prompt
from skipvision.method.skip_ffn import FfnRows, skipping_ffn
from tests.method import flops_by_hand
from tests.method.bare_llava import bare_llava

LLAMA3_8B = DecoderShape(hidden=4096, ffn_hidden=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128256)
SMALL = DecoderShape(hidden=24, ffn_hidden=40, layers=3, heads=4, kv_heads=2, head_dim=16, vocab=31)


def counted(shape: DecoderShape, plan: SkipPlan, convention: str) -> int:
    """The same by summation over tokens, without the formula."""
    by_hand = flops_by_hand.Shape(**{name: getattr(shape, name) for name in flops_by_hand.Shape.__dataclass_fields__})
    tokens = plan.prompt_tokens
    if convention == "dense":
        return flops_by_hand.counted_prefill(
            by_hand, kept=plan.ffn_tokens, skipped=plan.skipped_tokens, keys_of=lambda _: tokens, head=False
        )
    paper = convention == "paper"
    return flops_by_hand.counted_prefill(
        by_hand,
        kept=plan.ffn_tokens - (plan.text_tokens if paper else 0),
        skipped=plan.skipped_tokens,
        keys_of=lambda position: position + 1,
        full_heads=paper,
        head=not paper,
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    text=st.integers(0, 20),
    images=st.integers(0, 2),
    retain=st.integers(1, 12),
    merge_to=st.integers(1, 12),
    summarise=st.booleans(),
    convention=st.sampled_from(["causal", "dense", "paper"]),
)
def test_each_convention_is_its_sum_over_tokens(
    text: int, images: int, retain: int, merge_to: int, summarise: bool, convention: str
) -> None:
    config = SkipConfig(retain=retain, merge_skipped_to=merge_to, summarise=summarise)
    plan = plan_prompt(config, text_tokens=text, visual_tokens=[24] * images)
    assert prefill_flops(SMALL, plan, convention=convention) == counted(SMALL, plan, convention)


def test_causal_is_the_published_formula_and_the_default() -> None:
    plan = plan_prompt(SkipConfig.parse("100/156"), text_tokens=100, visual_tokens=[576])
    d, m, d_kv, layers, vocab = 4096, 14336, 1024, 32, 128256
    n_att, n_ffn = 100 + 100 + 156 + 2, 100 + 100 + 2
    published = layers * (n_att * (4 * d * d + 4 * d * d_kv) + 2 * d * n_att * (n_att + 1) + n_ffn * 6 * d * m)
    assert prefill_flops(LLAMA3_8B, plan) == published + 2 * d * vocab


@pytest.mark.parametrize(
    ("setting", "text", "convention", "ratio"),
    [
        ("100/156", 0, "paper", 0.251),
        ("256/320", 0, "paper", 0.605),
        ("100/156", 100, "paper", 0.251),
        ("100/156", 100, "causal", 0.342),
        ("256/320", 100, "causal", 0.625),
        ("100/156", 100, "dense", 0.342),
        ("256/320", 100, "dense", 0.630),
    ],
)
def test_llama3_8b_saves_what_was_published(setting: str, text: int, convention: str, ratio: float) -> None:
    plan = plan_prompt(SkipConfig.parse(setting), text_tokens=text, visual_tokens=[576])
    everything = plan_prompt(SkipConfig(), text_tokens=text, visual_tokens=[576])
    measured = prefill_flops(LLAMA3_8B, plan, convention=convention) / prefill_flops(
        LLAMA3_8B, everything, convention=convention
    )
    assert round(measured, 3) == ratio


@pytest.mark.parametrize("setting", ["off", "4/7", "4/7:plain", "20/5", "24/1:plain"])
def test_dense_is_what_torch_counts_on_eager_attention_to_the_digit(setting: str) -> None:
    model = bare_llava().model.language_model
    plan = plan_prompt(SkipConfig.parse(setting), text_tokens=9, visual_tokens=[25, 25])
    skipped = {i for start, stop in plan.skipped_spans([3, 5]) for i in range(start, stop)}
    kept = torch.tensor([i for i in range(plan.prompt_tokens) if i not in skipped])
    shape = DecoderShape.from_config(model.config.to_dict())

    with torch.no_grad(), skipping_ffn(model.layers, FfnRows(kept)), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, plan.prompt_tokens, shape.hidden), use_cache=False)

    assert prefill_flops(shape, plan, convention="dense") == counter.get_total_flops()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(cached=st.integers(0, 40), output=st.integers(1, 12))
def test_decoding_is_the_sum_of_its_steps(cached: int, output: int) -> None:
    by_hand = flops_by_hand.Shape(**{name: getattr(SMALL, name) for name in flops_by_hand.Shape.__dataclass_fields__})
    steps = flops_by_hand.counted_decode(by_hand, cached=cached, output=output - 1)  # the prompt gives the first token
    assert decode_flops(SMALL, cached_tokens=cached, output_tokens=output) == steps


@pytest.mark.parametrize("cached", [1, 12])
def test_a_decode_step_is_what_torch_counts(cached: int) -> None:
    model = bare_llava()
    decoder, cache = model.model.language_model, DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        decoder(torch.zeros(1, cached, dtype=torch.long), past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            step = decoder(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
            model.lm_head(step.last_hidden_state)
    shape = DecoderShape.from_config(model.config.text_config.to_dict())
    assert decode_flops(shape, cached_tokens=cached, output_tokens=2) == counter.get_total_flops()


@pytest.mark.parametrize("output_tokens", [0, 1])
def test_an_answer_of_one_token_needs_no_decode_step(output_tokens: int) -> None:
    assert decode_flops(SMALL, cached_tokens=10, output_tokens=output_tokens) == 0


def test_llama3_8b_holds_128_kib_per_token_in_half_precision() -> None:
    assert kv_bytes(LLAMA3_8B, 1, bytes_per_value=2) == 128 * 1024
    assert kv_bytes(LLAMA3_8B, 576, bytes_per_value=2) == 72 * 1024 * 1024


def test_bytes_are_those_of_a_real_cache() -> None:
    model = bare_llava()
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model.model.language_model(torch.zeros(1, 13, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    shape = DecoderShape.from_config(model.config.text_config.to_dict())
    assert kv_bytes(shape, 13, bytes_per_value=4) == held


def test_a_shape_is_read_from_a_config_with_the_usual_defaults() -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 50,
    }
    assert DecoderShape.from_config(sizes) == DecoderShape(
        hidden=64, ffn_hidden=100, layers=2, heads=4, kv_heads=4, head_dim=16, vocab=50
    )
    assert DecoderShape.from_config(sizes | {"num_key_value_heads": 2, "head_dim": 8}).kv_width == 16


def test_a_config_that_is_no_decoders_is_refused_naming_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="intermediate_size"):
        DecoderShape.from_config({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9})
