"""Prompts, settings and comparisons for the tests of `with skipping(model, config)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from tests.method import reference
from tests.method.bare_llava import IMAGE_TOKEN, words

VISUAL_TOKENS = 25
IMAGE = [IMAGE_TOKEN] * VISUAL_TOKENS
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

FULL = SkipConfig(retain=6, merge_skipped_to=8, summarise=True, forget_skipped=True)
CONFIGS = {
    "6/8": FULL,
    "6/8:plain": SkipConfig(retain=6, merge_skipped_to=8, forget_skipped=True),
    "6/rest": SkipConfig(retain=6, summarise=True, forget_skipped=True),
    "24/1": SkipConfig(retain=24, merge_skipped_to=1, summarise=True, forget_skipped=True),
    "6/8 with skipped keys and values kept": SkipConfig(retain=6, merge_skipped_to=8, summarise=True),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
NOTHING_SKIPPED = {
    "off": SkipConfig(),
    "25 retained": SkipConfig(retain=VISUAL_TOKENS),
    "25 retained, others forgotten": SkipConfig(retain=VISUAL_TOKENS, forget_skipped=True),
}
nothing_skipped = pytest.mark.parametrize("config", NOTHING_SKIPPED.values(), ids=NOTHING_SKIPPED.keys())

MIXED = {
    "one image": (words(4, seed=1) + IMAGE + words(6, seed=2), 1),
    "an image first and few words": (IMAGE + words(2, seed=3), 1),
    "two images apart": (words(2, seed=4) + IMAGE + words(3, seed=5) + IMAGE + words(4, seed=6), 2),
    "two images side by side": (words(1, seed=7) + IMAGE + IMAGE + words(3, seed=8), 2),
    "text only": (words(5, seed=9), 0),
}


def traces(model: Any) -> list[tuple[str, type, tuple[str, ...], int]]:
    """What a patch could leave behind in any module: its kind, its attributes and its hooks."""
    return [
        (
            name,
            type(module),
            tuple(sorted(module.__dict__)),
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks),
        )
        for name, module in model.named_modules()
    ]


def one_image_prompt() -> list[int]:
    return words(4, seed=1) + IMAGE + words(6, seed=2)


def as_batch(ids: Sequence[int]) -> Tensor:
    return torch.tensor([list(ids)])


def expected(model: Any, ids: Sequence[int], pixels: Tensor | None, config: SkipConfig, summary: SummaryPooling) -> Any:
    """The sequence the decoder should read."""
    return reference.assemble(
        model,
        ids,
        pixels,
        retain=config.retain,
        merge_skipped_to=config.merge_skipped_to,
        summary=dict(summary.named_parameters()) if config.summarise else None,
    )


def in_order_of_ids(prompt: reference.Prompt, kept_rows: Tensor) -> dict[int, Tensor]:
    """Rows of the kept positions by the index of their id: text only."""
    indices = [prompt.id_index[position] for position in prompt.kept]
    return {index: row for index, row in zip(indices, kept_rows, strict=True) if index is not None}


def greedy(model: Any, ids: Tensor, pixels: Tensor | None, num_tokens: int = 7, **more: Any) -> tuple[Tensor, Tensor]:
    """New tokens, (batch, num_tokens), and the logits each was chosen from, (batch, num_tokens, vocab)."""
    more |= {} if pixels is None else {"pixel_values": pixels}
    out = model.generate(
        input_ids=ids,
        max_new_tokens=num_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **more,
    )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, dim=1)
