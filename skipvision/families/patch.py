"""`with skipping(model, config)`: Skip-Vision on a live transformers LLaVA, and back.

Inside the block `model(...)`, training and `model.generate(...)` run with the visual tokens split as the config
wishes; after it the model is what it was. Hidden states and logits come back in the length and order of the input
ids, so that losses, generation and everything else around the model work unchanged: text keeps its places, the last
position of each image block stands at that image's last placeholder, and the other placeholders hold zeros.

Only this instance is touched: `forward` and `get_image_features` of its `model`, and the `mlp` of its decoder layers.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast

from skipvision.errors import ConfigError
from skipvision.families.checkpoint import carried_scales
from skipvision.families.clip import layers_to_read, watching_cls
from skipvision.method.kv_removal import keep_only
from skipvision.method.plan import SkipConfig, SkipPlan, plan_image, plan_prompt
from skipvision.method.skip_ffn import FfnRows, skipping_ffn
from skipvision.method.split import split_visual_tokens
from skipvision.method.summary import SummaryPooling


@contextmanager
def skipping(
    model: LlavaForConditionalGeneration, config: SkipConfig, summary: SummaryPooling | None = None
) -> Iterator[LlavaForConditionalGeneration]:
    """Run `model` with Skip-Vision inside the `with` block, and give it back unchanged after it.

    Args:
        model: a LLaVA with a CLIP tower and a LLaMA-shaped decoder. Prompts are padded on either side; several
            images, other counts per row, and text-only rows may share a batch.
        config: the wish. `SkipConfig()` touches nothing at all.
        summary: the checkpoint's summary pooling, if `config.summarise`.

    Raises:
        ConfigError: the wish does not fit the model.
    """
    if not isinstance(model, LlavaForConditionalGeneration):
        raise ConfigError(
            f"a live model must be a LlavaForConditionalGeneration (LLaVA-1.5); got {type(model).__name__}, which the "
            "engine runs with skipping"
        )
    if carried_scales(model.config):
        raise ConfigError(
            "the checkpoint has a chain-of-sight projector, which transformers' model does not run; use the engine"
        )
    if config.is_off:
        yield model
        return
    if config.reducer in ("random", "resize"):
        raise ConfigError(
            f"{config.describe()} needs the pictures themselves, which a live model does not hand out; run it through "
            "the engine, or use uniform or saliency here"
        )
    tokens = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    if plan_image(config, tokens).summaries and summary is None:
        raise ConfigError(f"the setting {config.describe()} needs summary tokens: pass the checkpoint's `summary`")
    core: Any = model.model
    if isinstance(core.forward, _SkippingForward):
        raise ConfigError("this model is already skipping: leave the block around it first")
    before = {name: core.__dict__[name] for name in ("forward", "get_image_features") if name in core.__dict__}
    with skipping_ffn(core.language_model.layers, FfnRows()) as rows:
        core.forward = _SkippingForward(core, config, summary, rows, tokens)
        core.get_image_features = _blocks_of(core, config, summary)
        try:
            yield model
        finally:
            del core.forward, core.get_image_features  # the class's own methods show again
            for name, method in before.items():
                setattr(core, name, method)


@dataclass(frozen=True, slots=True)
class _Block:
    """What the decoder reads of one image. As long as its placeholders: `generate` counts by that to expand beams."""

    rows: Tensor
    """(lm_tokens, hidden)"""
    placeholders: int

    def __len__(self) -> int:
        return self.placeholders


def _blocks_of(core: Any, config: SkipConfig, summary: SummaryPooling | None) -> Any:
    """`get_image_features` that gives, for each image, what the decoder reads of it.

    `generate` calls it by itself before the first forward pass, which then gets its output and no pixels.
    """
    stock = core.get_image_features
    layers = layers_to_read(core.config.vision_feature_layer, len(core.vision_tower.encoder.layers))

    @functools.wraps(stock)
    def get_image_features(pixel_values: Tensor, **kwargs: Any) -> Any:
        with watching_cls(core.vision_tower, layers - 1) as row:
            out = stock(pixel_values, **kwargs | {"return_dict": True})
        features = torch.stack(list(out.pooler_output))
        blocks = split_visual_tokens(features, row.scores(), config, summary).sequence()
        out.pooler_output = [_Block(block, features.shape[1]) for block in blocks]
        return out

    return get_image_features


@dataclass(frozen=True, slots=True)
class _Row:
    """One sequence of the batch as the decoder reads it."""

    places: Tensor
    """(text tokens,) where its text stands in the input ids."""
    image_ends: Tensor
    """(images,) the last placeholder of each image in the input ids."""
    plan: SkipPlan
    offsets: tuple[int, ...]
    """Text tokens before each image."""

    def is_text(self) -> Tensor:
        """(prompt_tokens,) bool"""
        mask = torch.ones(self.plan.prompt_tokens, dtype=torch.bool)
        for start, image in zip(self.plan.image_starts(self.offsets), self.plan.images, strict=True):
            mask[start : start + image.lm_tokens] = False
        return mask

    def is_skipped(self) -> Tensor:
        """(prompt_tokens,) bool"""
        mask = torch.zeros(self.plan.prompt_tokens, dtype=torch.bool)
        for start, stop in self.plan.skipped_spans(self.offsets):
            mask[start:stop] = True
        return mask

    def block_ends(self) -> list[int]:
        """The last position of each image block."""
        starts = self.plan.image_starts(self.offsets)
        return [start + image.lm_tokens - 1 for start, image in zip(starts, self.plan.images, strict=True)]


@dataclass(slots=True)
class _Decoding:
    """What the steps after a prefill need: positions go on from the whole prompt, the cache may be shorter."""

    mask: Tensor
    """(batch, cached) 1 where a cached column is real."""
    next_position: Tensor
    """(batch,) int64"""


class _SkippingForward:
    """Stands in for `LlavaModel.forward` while skipping."""

    def __init__(
        self, core: Any, config: SkipConfig, summary: SummaryPooling | None, rows: FfnRows, tokens: int
    ) -> None:
        self.core, self.config, self.summary, self.rows, self.tokens = core, config, summary, rows, tokens
        self.stock = core.forward
        self.decoding: weakref.WeakKeyDictionary[Any, _Decoding] = weakref.WeakKeyDictionary()

    def __call__(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        state = self.decoding.get(past_key_values) if past_key_values is not None else None
        if state is not None and past_key_values.get_seq_length() > 0:
            return self._decode(state, input_ids, past_key_values, kwargs)
        encoded = (kwargs.pop("mm_encoder_outputs", None) or {}).get("image")
        if pixel_values is None and encoded is None:
            return self.stock(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                **kwargs,
            )
        if input_ids is None:
            raise ValueError("skipping needs input_ids beside pixel_values, to see where the images stand")
        if encoded is None:
            encoded = self.core.get_image_features(pixel_values)
        return self._read(input_ids, encoded.pooler_output, attention_mask, past_key_values, kwargs)

    def _decode(self, state: _Decoding, input_ids: Tensor | None, cache: Any, kwargs: dict[str, Any]) -> Any:
        assert input_ids is not None
        new = input_ids.shape[1]
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(state.mask), new)], dim=1)
        positions = state.next_position[:, None] + torch.arange(new, device=input_ids.device)
        state.next_position = state.next_position + new
        return self.stock(
            input_ids=input_ids, attention_mask=state.mask, position_ids=positions, past_key_values=cache, **kwargs
        )

    def _read(
        self, input_ids: Tensor, blocks: list[_Block], mask: Tensor | None, cache: Any, kwargs: dict[str, Any]
    ) -> LlavaModelOutputWithPast:
        for name in ("vision_feature_layer", "vision_feature_select_strategy", "image_sizes"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"{name} cannot be given while skipping: the model's own setting is used")
        real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
        rows = [self._row(ids, there) for ids, there in zip(input_ids.cpu(), real.cpu(), strict=True)]
        sequences = self._sequences(input_ids, blocks, rows)
        length = max(len(sequence) for sequence in sequences)
        if all(row.plan.prompt_tokens == len(ids) for row, ids in zip(rows, input_ids, strict=True)):
            padded_mask = mask  # nothing moved: the stock model's own input, and so its own kernels
        else:
            padded_mask = torch.stack([_pad_left(input_ids.new_ones(len(s)), length) for s in sequences])
        embeds = torch.stack([_pad_left(sequence, length) for sequence in sequences])
        padding = torch.tensor([length - len(s) for s in sequences], device=embeds.device)
        positions = (torch.arange(length, device=embeds.device) - padding[:, None]).clamp(min=0)

        skipped = torch.stack([_pad_left(row.is_skipped(), length) for row in rows])
        index = (~skipped).flatten().nonzero().squeeze(1).to(embeds.device) if skipped.any() else None
        out = self.core.language_model(
            inputs_embeds=embeds,
            attention_mask=padded_mask,
            position_ids=positions,
            past_key_values=cache,
            skip_ffn_rows=index,
            **kwargs,
        )
        if out.past_key_values is not None:
            self._remember(out.past_key_values, skipped, positions, padding)
        return LlavaModelOutputWithPast(
            last_hidden_state=self._back_in_place(out.last_hidden_state, rows, input_ids),
            past_key_values=out.past_key_values,
        )

    def _row(self, ids: Tensor, real: Tensor) -> _Row:
        is_image = (ids == self.core.config.image_token_id) & real
        places = (real & ~is_image).nonzero().squeeze(1)
        placeholders = is_image.nonzero().squeeze(1)
        if len(placeholders) % self.tokens:
            raise ValueError(f"{len(placeholders)} image placeholders are no multiple of {self.tokens} visual tokens")
        firsts, image_ends = placeholders[:: self.tokens], placeholders[self.tokens - 1 :: self.tokens]
        offsets = tuple(int((places < first).sum()) for first in firsts)
        plan = plan_prompt(self.config, text_tokens=len(places), visual_tokens=[self.tokens] * len(firsts))
        return _Row(places, image_ends, plan, offsets)

    def _sequences(self, input_ids: Tensor, image_blocks: list[_Block], rows: list[_Row]) -> list[Tensor]:
        wanted = sum(len(row.plan.images) for row in rows)
        if wanted != len(image_blocks):
            raise ValueError(f"the prompts have places for {wanted} images and {len(image_blocks)} were given")
        blocks = iter(image_blocks)
        embeds = self.core.get_input_embeddings()(input_ids)
        sequences = []
        for row, own in zip(rows, embeds, strict=True):
            text = own[row.places.to(own.device)]
            edges = (0, *row.offsets, len(text))
            pieces = [text[: edges[1]]]
            for start, stop in pairwise(edges[1:]):
                pieces += [next(blocks).rows.to(text.dtype), text[start:stop]]
            sequences.append(torch.cat(pieces))
        return sequences

    def _remember(self, cache: Any, skipped: Tensor, positions: Tensor, padding: Tensor) -> None:
        columns = torch.arange(skipped.shape[1])
        real = columns >= padding.cpu()[:, None]
        if self.config.forget_skipped and skipped.any():
            kept = [columns[there & ~gone] for there, gone in zip(real, skipped, strict=True)]
            length = max(len(row) for row in kept)
            keep_only(cache.layers, torch.stack([_pad_left(row, length) for row in kept]))
            real = torch.stack([_pad_left(torch.ones_like(row), length) for row in kept])
        mask = real.to(positions.device, torch.long)
        self.decoding[cache] = _Decoding(mask, positions[:, -1] + 1)

    def _back_in_place(self, hidden: Tensor, rows: list[_Row], input_ids: Tensor) -> Tensor:
        out = hidden.new_zeros(*input_ids.shape, hidden.shape[-1])
        for i, row in enumerate(rows):
            own = hidden[i, hidden.shape[1] - row.plan.prompt_tokens :]
            out[i, row.places.to(out.device)] = own[row.is_text().to(own.device)]
            if len(row.image_ends):
                out[i, row.image_ends.to(out.device)] = own[row.block_ends()]
        return out


def _pad_left(x: Tensor, length: int) -> Tensor:
    """(n, ...) -> (length, ...), zeros before."""
    return torch.cat([x.new_zeros(length - len(x), *x.shape[1:]), x])
