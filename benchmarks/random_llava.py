"""LLaVA checkpoints of published and other shapes with random weights: as fast or slow as trained ones.

Saved as `save_pretrained` gives them, with the shipped model's tokenizer, so that peers load the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from skipvision.families import FAMILIES
from skipvision.families.checkpoint import read_config, save_skip
from skipvision.families.llava import LlavaFamily
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.shape import CHAT_TEMPLATE, SPECIAL_TOKENS, build_processor, build_tokenizer

SIDE, PATCH = 336, 14
VISUAL_TOKENS = (SIDE // PATCH) ** 2
PAPER_SETTING = SkipConfig(retain=100, merge_skipped_to=156, summarise=True, forget_skipped=True)
PAPER_SETTING_TILED = SkipConfig(retain=576, merge_skipped_to=576, summarise=True, forget_skipped=True)


def small() -> LlavaConfig:
    """92 million parameters: a decoder of 12 layers and width 768 behind LLaVA-1.5's 576 visual tokens."""
    vision = CLIPVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=2000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=4096,
    )  # fmt: skip
    return _llava(vision, text)


def small_tiled() -> LlavaNextConfig:
    """The same decoder behind a thumbnail and four tiles: 2880 visual tokens and a newline after each line."""
    config = small()
    return tiled(config.vision_config, config.text_config)


def seven_billion() -> LlavaConfig:
    """LLaVA-1.5-7B: a LLaMA-2-7B decoder behind CLIP-L at 336 pixels."""
    text = LlamaConfig(
        vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        max_position_embeddings=4096,
    )  # fmt: skip
    return _llava(_clip_large(), text)


def eight_billion() -> LlavaConfig:
    """LLaVA with a LLaMA-3-8B decoder, four heads to a key head, behind CLIP-L at 336 pixels."""
    text = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )  # fmt: skip
    return _llava(_clip_large(), text)


def eight_billion_tiled() -> LlavaNextConfig:
    """LLaVA-NeXT of the same parts: a thumbnail and four tiles of a picture of 672 pixels, 576 tokens each."""
    config = eight_billion()
    return tiled(config.vision_config, config.text_config)


def tiled(vision: CLIPVisionConfig, text: LlamaConfig) -> LlavaNextConfig:
    """LLaVA-NeXT over these parts, which cuts a picture of twice the tower's side into four."""
    grid = [[2 * vision.image_size, 2 * vision.image_size]]
    return LlavaNextConfig(**_around(vision, text), image_grid_pinpoints=grid)


def save_random(folder: Path, config: LlavaConfig, *, dtype: torch.dtype, seed: int = 0) -> None:
    """Write a checkpoint of this shape that carries the paper's 100/156 and a summary module."""
    torch.manual_seed(seed)
    LlavaForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    _save_around(folder, config)


def random_family(
    folder: Path, config: LlavaConfig | LlavaNextConfig, *, device: torch.device, dtype: torch.dtype
) -> LlavaFamily:
    """The same with weights that are drawn on the device and never written; `folder` gets everything else."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            weights = FAMILIES[config.model_type].architecture(config)
    finally:
        torch.set_default_dtype(before)
    config.save_pretrained(folder)
    _save_around(folder, config)
    return FAMILIES[config.model_type](folder, read_config(folder), device=device, dtype=dtype, weights=weights)


def _save_around(folder: Path, config: LlavaConfig | LlavaNextConfig) -> None:
    is_tiled = isinstance(config, LlavaNextConfig)
    processor = (
        _build_tiled_processor(config) if is_tiled else build_processor(build_tokenizer(), side=SIDE, patch_side=PATCH)
    )
    processor.save_pretrained(folder)
    save_skip(
        folder, PAPER_SETTING_TILED if is_tiled else PAPER_SETTING, SummaryPooling(config.text_config.hidden_size)
    )


def _build_tiled_processor(config: LlavaNextConfig) -> LlavaNextProcessor:
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints),
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _clip_large() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip


def _llava(vision: CLIPVisionConfig, text: LlamaConfig) -> LlavaConfig:
    return LlavaConfig(**_around(vision, text))


def _around(vision: CLIPVisionConfig, text: LlamaConfig) -> dict[str, Any]:
    """What the configs of both kinds of LLaVA are made of."""
    for name in ("pad", "bos", "eos"):
        token = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}[name]
        setattr(text, f"{name}_token_id", SPECIAL_TOKENS.index(token))
    return {
        "vision_config": vision,
        "text_config": text,
        "image_token_index": SPECIAL_TOKENS.index("<image>"),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
