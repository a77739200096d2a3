"""LLaVA-1.5: a CLIP tower, a two-layer projector, a LLaMA-shaped decoder.

The stock forward is the reference in the tests; here the same stock submodules run over packed rows. No model file
is copied. Whoever runs the stock decoder over packed rows, as fine-tuning does, finds attention in transformers' table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import AttentionInterface, AutoProcessor, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel
from transformers.utils import logging as transformers_logging

from skipvision.conversation import Conversation
from skipvision.errors import ConfigError, InputError
from skipvision.families.checkpoint import carried_skip, context_tokens, load_summary, visual_tokens
from skipvision.families.clip import layers_to_read, run_tower
from skipvision.families.family import Attend, EncodedImages, ImagePreparer, PromptTokens
from skipvision.families.layer_math import choose_layer_math
from skipvision.families.narrow import narrow_linears
from skipvision.families.prompt import PromptTokenizer
from skipvision.method.flops import DecoderShape

ATTENTION = "skipvision_packed"
"""Our name in transformers' attention table. It is not in the mask table, so that no mask is built."""


def resized(image_processor: Any, rgb: np.ndarray) -> np.ndarray:
    """What a checkpoint's own processor makes of one image, neither rescaled nor normalised: (..., side, side)."""
    done = image_processor(
        [rgb], do_rescale=False, do_normalize=False, input_data_format="channels_last", return_tensors="np"
    )
    pixels: np.ndarray = np.asarray(done["pixel_values"][0])
    return pixels.clip(0, 255).round().astype(np.uint8) if pixels.dtype != np.uint8 else pixels


def resized_to(image_processor: Any, height: int, width: int) -> tuple[int, int]:
    """What a checkpoint's own processor resizes a picture of that size to, before it crops."""
    size = image_processor.size
    if not image_processor.do_resize:
        return height, width
    if size.get("shortest_edge"):
        scale = size["shortest_edge"] / min(height, width)
        return ceil(height * scale), ceil(width * scale)
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    return height, width  # another rule, which nothing is known about here: all of the picture may be needed


class LlavaPreparer:
    """Resizes as the checkpoint's processor does, and leaves rescaling and normalising to the device."""

    def __init__(self, image_processor: Any, config: LlavaConfig) -> None:
        self._image_processor = image_processor
        self._tokens = visual_tokens(config)
        self._side = int(config.vision_config.image_size)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """See `ImagePreparer.prepare`."""
        return resized(self._image_processor, rgb)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """See `ImagePreparer.target_size`."""
        return resized_to(self._image_processor, height, width)

    def visual_tokens(self, pixels: np.ndarray) -> int:
        """See `ImagePreparer.visual_tokens`; the tower sees one size only."""
        if pixels.shape[1:] != (self._side, self._side):
            height, width = pixels.shape[1:]
            raise InputError(
                f"prepared pixels must be {self._side} high and {self._side} wide for this model; got {height} and "
                f"{width}; use the engine's prepare"
            )
        return self._tokens


class LlavaFamily:
    """A loaded LLaVA-1.5 checkpoint. See `Family` for what its members mean.

    Args:
        weights: the model itself, of this config, device and dtype, where it is made and not read from the checkpoint.
    """

    name = "llava"
    resampler: nn.Module | None = None
    pooled_from = 0
    can_resize = True
    architecture: type[PreTrainedModel] = LlavaForConditionalGeneration
    preparer_of: Callable[[Any, Any], ImagePreparer] = LlavaPreparer

    def __init__(
        self, model: str | Path, config: Any, *, device: torch.device, dtype: torch.dtype, weights: Any = None
    ) -> None:
        processor = load_processor(model)
        self.device, self.dtype = device, dtype
        self.shape = DecoderShape.from_config(config.text_config.to_dict())
        self.preparer = type(self).preparer_of(processor.image_processor, config)
        self.context_tokens = context_tokens(config)
        self.carried_skip = carried_skip(config)
        self._prompts = PromptTokenizer(processor, image_token_id=config.image_token_id)
        self.model: Any = (weights or load_weights(self.architecture, model, config, dtype).to(device)).eval()
        self.layers = self.model.model.language_model.layers
        self.eos_token_ids = _eos_token_ids(self.model, processor.tokenizer)
        summary = load_summary(model, self.shape.hidden)
        self.summary = summary.to(device, dtype) if summary is not None else None
        self._layers = layers_to_read(config.vision_feature_layer, config.vision_config.num_hidden_layers)
        self._scale, self._shift = _normalisation(processor.image_processor, device)
        AttentionInterface.register(ATTENTION, _packed_attention)
        self.model.model.language_model.set_attn_implementation(ATTENTION)
        self._math = choose_layer_math(self.model.model.language_model, self.shape, device=device, dtype=dtype)
        if device.type == "cpu" and dtype == torch.float32:
            narrow_linears(self.model.model.language_model)

    def tokenize(self, prompt: str | Conversation, *, num_images: int) -> PromptTokens:
        """See `Family.tokenize`."""
        return self._prompts.tokenize(prompt, num_images=num_images)

    def detokenize(self, ids: Sequence[int]) -> str:
        """See `Family.detokenize`."""
        return self._prompts.detokenize(ids)

    @torch.inference_mode()
    def encode(self, pixels: Tensor, *, side_tokens: int | None = None) -> EncodedImages:
        """See `Family.encode`."""
        return self.look(pixels if side_tokens is None else self._smaller(pixels, side_tokens))

    def _smaller(self, pixels: Tensor, side_tokens: int) -> Tensor:
        """(images, 3, side, side) uint8 -> the same of `side_tokens` patches, averaged as image libraries do."""
        side = side_tokens * int(self.model.config.vision_config.patch_size)
        if side == pixels.shape[-1]:
            return pixels
        smaller = interpolate(pixels.float(), size=(side, side), mode="bicubic", antialias=True)
        return smaller.clamp(0, 255).round().to(torch.uint8)

    def look(self, pixels: Tensor) -> EncodedImages:
        """What `encode` gives, with the gradients of whatever is being trained."""
        features, saliency = self._look(pixels)
        return EncodedImages(features.unbind(), saliency.unbind())

    def _look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What tower and projector make of (images, 3, side, side) uint8: features, and the CLS row of each image."""
        normal = (pixels.float() * self._scale + self._shift).to(self.dtype)
        hidden, saliency = run_tower(self.model.model.vision_tower, normal, layers=self._layers)
        return self.model.model.multi_modal_projector(hidden), saliency

    def save_extra(self, folder: Path) -> None:
        """See `TrainableFamily.save_extra`."""

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """See `Family.embed`."""
        return self.model.get_input_embeddings()(ids)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def read(
        self, hidden: Tensor, positions: Tensor, *, ffn_rows: Tensor | None, wanted_rows: Tensor, attend: Attend
    ) -> Tensor:
        """See `Family.read`."""
        decoder: Any = self.model.model.language_model
        *layers, last = decoder.layers
        rotary = tuple(factors[0] for factors in decoder.rotary_emb(hidden[None], position_ids=positions[None]))
        for layer in layers:
            hidden = hidden + self._attended(layer, hidden, rotary, attend)
            if ffn_rows is None:
                hidden = hidden + self._fed_forward(layer, hidden)
            else:
                hidden = hidden.index_add(0, ffn_rows, self._fed_forward(layer, hidden.index_select(0, ffn_rows)))
        mixed = self._attended(last, hidden, rotary, attend, wanted_rows=wanted_rows)
        hidden = hidden.index_select(0, wanted_rows) + mixed
        hidden = hidden + self._fed_forward(last, hidden)
        return self._math.norm(decoder.norm, hidden)

    def _attended(
        self, layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...], attend: Attend, *,
        wanted_rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """What one layer's attention adds: keys and values of all rows, queries of the wanted ones, (wanted, hidden).

        Args:
            wanted_rows: None: all are.
        """
        attention: Any = layer.self_attn
        normed = self._math.norm(layer.input_layernorm, hidden)
        asking, turns = normed, rotary
        if wanted_rows is not None:
            asking, turns = normed.index_select(0, wanted_rows), tuple(x.index_select(0, wanted_rows) for x in rotary)
        q = self._math.turn(attention.q_proj(asking).unflatten(-1, (-1, attention.head_dim)), *turns)
        k = self._math.turn(attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)), *rotary)
        v = attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim))
        mixed = attend(attention.layer_idx, q, k, v, attention.scaling, only_wanted=wanted_rows is not None)
        return attention.o_proj(mixed.flatten(-2))  # type: ignore[no-any-return]

    def _fed_forward(self, layer: Any, rows: Tensor) -> Tensor:
        return self._math.feed_forward(layer.mlp, self._math.norm(layer.post_attention_layernorm, rows))

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """See `Family.logits`."""
        scores: Tensor = self.model.lm_head(hidden)
        return scores.float()


def load_processor(model: str | Path) -> Any:
    """The checkpoint's processor: image processor, tokenizer, chat template.

    Raises:
        ConfigError: the checkpoint has none.
    """
    try:
        return AutoProcessor.from_pretrained(str(model), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(model)!r} has no usable processor (image processor and tokenizer files)") from error


def load_weights(architecture: Any, model: str | Path, config: Any, dtype: torch.dtype | str) -> Any:
    """The checkpoint's weights, from safetensors only: other formats can run code when read.

    Raises:
        ConfigError: there are no safetensors weights.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # ours is not the only output of the process that loads
    try:
        return architecture.from_pretrained(str(model), config=config, dtype=dtype, use_safetensors=True)
    except OSError as error:
        raise ConfigError(
            f"{str(model)!r} has no safetensors weights; convert it with save_pretrained (pickled weights are refused)"
        ) from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, scaling: float, attend: Attend,
    **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface -> the engine's: (1, heads, rows, head_dim) <-> (rows, heads, head_dim)."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(module.layer_idx, q, k, v, scaling, only_wanted=False)[None], None


def _eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ends that the checkpoint's generation config, text config or tokenizer name."""
    for named in (model.generation_config.eos_token_id, model.config.text_config.eos_token_id, tokenizer.eos_token_id):
        if named is not None:
            return frozenset([named] if isinstance(named, int) else named)
    raise ConfigError("the checkpoint names no EOS token, so no answer would ever end")


def _normalisation(image_processor: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (3, 1, 1): uint8 pixels * scale + shift is what the tower expects."""
    factor = float(image_processor.rescale_factor) if image_processor.do_rescale else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if image_processor.do_normalize:
        mean, std = image_processor.image_mean, image_processor.image_std
    scale, shift = [factor / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    return tuple(torch.tensor(x, device=device).view(3, 1, 1) for x in (scale, shift))  # type: ignore[return-value]
