"""What a prompt costs: floating-point operations and bytes of keys and values, from token counts alone.

A multiply-add is 2 operations. Three conventions, never mixed and always named where a figure stands:

- `causal`, the one reported: a token attends to itself and those before it; the head runs for one token.
- `dense`: attention as eager kernels execute it, every token with every token, without the head. Equal, to the
  digit, to what torch's FlopCounterMode counts.
- `paper`: the FLOPs column of arXiv:2503.21817: causal, visual and summary tokens only, without the head, keys and
  values projected as if they were as wide as the hidden size.

Not counted: norms, activations, rotary embedding, softmax, and the vision encoder, which skipping does not change. Of
the reductions only `resize` saves some of the encoder's work, and that saving is not counted either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from skipvision.errors import ConfigError
from skipvision.method.plan import SkipPlan

Convention = Literal["causal", "dense", "paper"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderShape:
    """The sizes of a LLaMA-shaped decoder that decide its cost."""

    hidden: int
    ffn_hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DecoderShape:
        """Read the sizes from a transformers text config as a mapping.

        Raises:
            ConfigError: a size is missing; the config is not that of a LLaMA-shaped decoder.
        """
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        missing = [name for name in names if not isinstance(config.get(name), int)]
        if missing:
            raise ConfigError(f"the text config lacks {', '.join(missing)}, so its decoder's cost cannot be counted")
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            ffn_hidden=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
        )

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim


def prefill_flops(shape: DecoderShape, plan: SkipPlan, *, convention: Convention = "causal") -> int:
    """Operations to read one prompt; see the module for the conventions."""
    text = 0 if convention == "paper" else plan.text_tokens
    tokens = text + plan.prompt_tokens - plan.text_tokens
    ffn_tokens = text + plan.ffn_tokens - plan.text_tokens
    kv_width = shape.hidden if convention == "paper" else shape.kv_width
    pairs = tokens * tokens if convention == "dense" else tokens * (tokens + 1) // 2

    projections = tokens * 4 * shape.hidden * (shape.q_width + kv_width)  # q and o, k and v
    attention = 4 * shape.q_width * pairs  # scores, then the weighted sum
    ffn = ffn_tokens * 6 * shape.hidden * shape.ffn_hidden  # gate, up and down
    head = 2 * shape.hidden * shape.vocab if convention == "causal" else 0
    return shape.layers * (projections + attention + ffn) + head


def decode_flops(shape: DecoderShape, *, cached_tokens: int, output_tokens: int) -> int:
    """Operations to generate `output_tokens` after a prompt that left `cached_tokens` keys and values.

    The first output token comes from the prefill, so `output_tokens - 1` decode steps run.
    """
    steps = max(0, output_tokens - 1)
    per_step = shape.layers * (
        4 * shape.hidden * (shape.q_width + shape.kv_width) + 6 * shape.hidden * shape.ffn_hidden
    )
    attended = steps * cached_tokens + steps * (steps + 1) // 2  # each step also reads itself and those before it
    return steps * (per_step + 2 * shape.hidden * shape.vocab) + shape.layers * 4 * shape.q_width * attended


def kv_bytes(shape: DecoderShape, tokens: int, *, bytes_per_value: int) -> int:
    """Bytes of keys and values that `tokens` cached tokens hold over all layers."""
    return shape.layers * 2 * shape.kv_width * bytes_per_value * tokens
