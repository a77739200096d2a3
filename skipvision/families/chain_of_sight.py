"""LLaVA with a chain-of-sight projector: the same tower and decoder, another vision side.

Its checkpoint is an ordinary LLaVA folder that transformers loads, whose own projector nobody uses, with two additions:
the key `chain_of_sight` in `config.json`, and the projector's weights in `chain_of_sight.safetensors`. Under skipping
the coarser scales are retained first, and no summary is pooled over the coarsest, as the paper does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import (
    CONFIG_KEY,
    COS_FILE,
    COS_KEY,
    carried_scales,
    check_supported,
    load_module,
    patch_grid,
    pooled_from,
    read_config,
    resolve_model,
    save_module,
)
from skipvision.families.clip import run_tower
from skipvision.families.llava import LlavaFamily, load_processor, load_weights
from skipvision.method.chain_of_sight import ChainOfSight, Scale

_HEAD_WIDTH = 64
"""Of the attention within windows, where the tower's width allows it: CLIP's own."""


class CosFamily(LlavaFamily):
    """A loaded LLaVA with a chain-of-sight projector. See `Family` for what its members mean."""

    name = "llava_chain_of_sight"
    can_resize = False  # its windows stand on a grid of one size
    resampler: ChainOfSight

    def __init__(
        self, model: str | Path, config: Any, *, device: torch.device, dtype: torch.dtype, weights: Any = None
    ) -> None:
        super().__init__(model, config, device=device, dtype=dtype, weights=weights)
        resampler = build_chain_of_sight(config)
        load_module(model, COS_FILE, resampler, required=True)
        self.resampler = resampler.to(device, dtype).eval()
        self.pooled_from = pooled_from(config)

    def _look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        normal = (pixels.float() * self._scale + self._shift).to(self.dtype)
        hidden, saliency = run_tower(self.model.model.vision_tower, normal, layers=self._layers)
        return self.resampler(hidden), self.resampler.rank(saliency)

    def save_extra(self, folder: Path) -> None:
        """See `TrainableFamily.save_extra`."""
        save_module(folder / COS_FILE, self.resampler)


def build_chain_of_sight(config: Any) -> ChainOfSight:
    """A new projector of the scales that a checkpoint's config names."""
    vision = config.vision_config
    scales, width = carried_scales(config), vision.hidden_size
    heads = width // _HEAD_WIDTH if width % _HEAD_WIDTH == 0 else vision.num_attention_heads
    return ChainOfSight(width, config.text_config.hidden_size, grid=patch_grid(config), scales=scales, heads=heads)


def add_chain_of_sight(model: str | Path, scales: Sequence[Scale], output: Path, *, seed: int = 0) -> None:
    """Copy a LLaVA checkpoint, with a new chain-of-sight projector that has learnt nothing yet.

    Args:
        model: as `load_family` takes it. A setting that it carries is left behind, with its summary module: both were
            learnt with another projector's tokens.
        scales: the coarsest first.

    Raises:
        ConfigError: the scales do not fit the tower, there is no such model, or it looks at tiles.
    """
    config = read_config(model)
    model = resolve_model(model)
    setattr(config, COS_KEY, [[scale.window, scale.queries] for scale in scales])
    check_supported(config, model)
    if hasattr(config, CONFIG_KEY):
        delattr(config, CONFIG_KEY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        resampler = build_chain_of_sight(config)
    weights = load_weights(LlavaForConditionalGeneration, model, config, "auto")
    weights.save_pretrained(output)
    load_processor(model).save_pretrained(output)
    save_module(output / COS_FILE, resampler)
