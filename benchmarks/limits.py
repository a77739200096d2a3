"""What one answer's work is, counted from sizes: operations and bytes, of the stock model and of what is executed.

The stock model runs every layer for every token. An answer does not need the encoder's layers above the one that is
read, nor, of the last decoder layer, anything but keys and values of rows that no token is chosen from; what does
not compute them is held against the smaller figure. Operations are counted causally, a multiply-add as 2; norms,
activations, rotary embedding, softmax and the choice of tokens to retain are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import LlavaConfig

from skipvision.families.clip import layers_to_read
from skipvision.families.llava import LlavaFamily
from skipvision.method.flops import DecoderShape, decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipPlan

Flops = dict[str, int]
"""Operations by part: `encoder`, `prefill`, `decode`."""


def work_of(family: LlavaFamily, plan: SkipPlan, *, output_tokens: int, tiles: int = 1) -> dict[str, Any]:
    """Everything that is modelled about one request, ready for JSON.

    Args:
        tiles: that the encoder looks at for each image.
    """
    config, shape = family.model.config, family.shape
    vision_layers = config.vision_config.num_hidden_layers
    read_layers = layers_to_read(config.vision_feature_layer, vision_layers)
    decode = decode_flops(shape, cached_tokens=plan.cached_tokens, output_tokens=output_tokens)
    looks, value_bytes = tiles * len(plan.images), family.dtype.itemsize
    return {
        "stock_flops": {
            "encoder": looks * encoder_flops(config, layers=vision_layers),
            "prefill": prefill_flops(shape, plan),
            "decode": decode,
        },
        "executed_flops": {
            "encoder": looks * encoder_flops(config, layers=read_layers),
            "prefill": executed_prefill_flops(shape, plan),
            "decode": decode,
        },
        "cached_bytes": kv_bytes(shape, plan.cached_tokens, bytes_per_value=value_bytes),
        "decode_kv_bytes": decode_kv_bytes(
            shape, cached_tokens=plan.cached_tokens, output_tokens=output_tokens, bytes_per_value=value_bytes
        ),
        "decode_steps": max(0, output_tokens - 1),
        "decode_weight_bytes": value_bytes * decode_weights(shape),
    }


def executed_prefill_flops(shape: DecoderShape, plan: SkipPlan) -> int:
    """Operations to read one prompt when its last row alone leaves the last layer."""
    others, pairs = plan.prompt_tokens - 1, plan.prompt_tokens * (plan.prompt_tokens + 1) // 2
    projections = others * 4 * shape.hidden * shape.q_width  # q and o
    attention = 4 * shape.q_width * (pairs - plan.prompt_tokens)
    ffn = (plan.ffn_tokens - 1) * 6 * shape.hidden * shape.ffn_hidden
    return prefill_flops(shape, plan) - projections - attention - ffn


def encoder_flops(config: LlavaConfig, *, layers: int) -> int:
    """Operations to turn one image into visual tokens: patches, CLIP's first `layers`, projector."""
    vision, wide = config.vision_config, int(config.text_config.hidden_size)
    patches = int(vision.image_size // vision.patch_size) ** 2
    tokens, width = patches + 1, int(vision.hidden_size)
    embedding = 2 * patches * int(vision.num_channels * vision.patch_size**2) * width
    per_layer = tokens * (8 * width**2 + 4 * width * int(vision.intermediate_size)) + 4 * tokens**2 * width
    projector = 2 * patches * wide * (width + wide)
    return embedding + layers * per_layer + projector


def decode_weights(shape: DecoderShape) -> int:
    """Weights that a decode step reads: every layer's matrices, and the head."""
    per_layer = 2 * shape.hidden * (shape.q_width + shape.kv_width) + 3 * shape.hidden * shape.ffn_hidden
    return shape.layers * per_layer + shape.hidden * shape.vocab


def decode_kv_bytes(shape: DecoderShape, *, cached_tokens: int, output_tokens: int, bytes_per_value: int) -> int:
    """Bytes of keys and values that one request's decode steps read; each also reads its own token's."""
    steps = max(0, output_tokens - 1)
    return kv_bytes(shape, steps * cached_tokens + steps * (steps + 1) // 2, bytes_per_value=bytes_per_value)


def decode_bytes(work: Mapping[str, Any], *, requests: int, max_running: int) -> int:
    """Bytes to read for the decode steps of `requests` alike, in as few steps as `max_running` allows."""
    passes = -(-requests // max_running)
    return int(passes * work["decode_steps"] * work["decode_weight_bytes"] + requests * work["decode_kv_bytes"])
