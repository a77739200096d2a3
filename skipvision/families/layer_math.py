"""What a decoder layer does between its matrix products: as the stock modules do it, or fewer passes over memory.

Stock, a rotary embedding is five kernels, a norm five and a gate two, each of which reads and writes every value. Next
to matrix products on a GPU's tensor cores that is a third of a prompt's time (docs/decisions/0009).
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu
from transformers.models.llama.modeling_llama import rotate_half

from skipvision.method.flops import DecoderShape

log = logging.getLogger(__name__)

_CLOSE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of numbers around 1: the order of operations, and a few roundings of the narrow types."""
_GATE_TILE = 1024


class LayerMath(Protocol):
    """The steps between the products; `x` is (rows, width), and none of them keeps a gradient."""

    def norm(self, module: Any, x: Tensor) -> Tensor:
        """A stock RMS norm."""
        ...

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary embedding as LLaMA, Mistral and Qwen2 have it; what it is given is not to be used again.

        Args:
            x: (rows, heads, head_dim), what a projection has just made.
            cos, sin: (rows, head_dim) in the dtype of `x`.
        """
        ...

    def feed_forward(self, mlp: Any, x: Tensor) -> Tensor:
        """A stock feed-forward block."""
        ...


class StockMath:
    """By the stock modules, on any device."""

    def norm(self, module: Any, x: Tensor) -> Tensor:
        """See `LayerMath.norm`."""
        return module(x)  # type: ignore[no-any-return]

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """See `LayerMath.turn`."""
        quarter_turn: Tensor = rotate_half(x)
        return x * cos[:, None] + quarter_turn * sin[:, None]

    def feed_forward(self, mlp: Any, x: Tensor) -> Tensor:
        """See `LayerMath.feed_forward`."""
        return mlp(x)  # type: ignore[no-any-return]


class FusedMath:
    """By one kernel each, on a GPU that Triton compiles for."""

    def norm(self, module: Any, x: Tensor) -> Tensor:
        """See `LayerMath.norm`."""
        return rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """See `LayerMath.turn`; `x` and its rows' factors are contiguous."""
        import triton

        from skipvision.families.layer_kernels import turn_heads

        rows, heads, head_dim = x.shape
        half = head_dim // 2
        if rows:
            turn_heads[(rows,)](
                x, cos, sin, heads=heads, heads_tile=triton.next_power_of_2(heads), half=half,
                half_tile=triton.next_power_of_2(half),
            )  # fmt: skip
        return x

    def feed_forward(self, mlp: Any, x: Tensor) -> Tensor:
        """See `LayerMath.feed_forward`."""
        return mlp.down_proj(self.gated(mlp.gate_proj(x), mlp.up_proj(x)))  # type: ignore[no-any-return]

    def gated(self, gates: Tensor, ups: Tensor) -> Tensor:
        """silu(gates) * ups, both contiguous, in the memory of `gates`."""
        import triton

        from skipvision.families.layer_kernels import gate_by_silu

        if count := gates.numel():
            gate_by_silu[(triton.cdiv(count, _GATE_TILE),)](gates, ups, count, tile=_GATE_TILE)
        return gates


def choose_layer_math(decoder: Any, shape: DecoderShape, *, device: torch.device, dtype: torch.dtype) -> LayerMath:
    """Fused where the device is a CUDA one, the decoder is of the kind that it knows, and it computes the same.

    Tried once on a few random tokens; why it is not used stands in the log, and afterwards nothing is caught.
    """
    if device.type != "cuda":
        return StockMath()
    why = _unknown_in(decoder) or _fault_of(FusedMath(), shape, device, dtype)
    if why:
        log.warning("%s: decoder layers compute step by step: %s", device, why)
        return StockMath()
    return FusedMath()


def _unknown_in(decoder: Any) -> str | None:
    """What this decoder has that `FusedMath` would compute otherwise. None: nothing."""
    if decoder.config.hidden_act not in ("silu", "swish"):
        return f"its feed-forward blocks are activated by {decoder.config.hidden_act!r}"
    norms = [decoder.norm, *(norm for layer in decoder.layers for norm in _norms_of(layer))]
    if odd := next((norm for norm in norms if not hasattr(norm, "variance_epsilon")), None):
        return f"it has norms of the kind {type(odd).__name__}"
    return None


def _norms_of(layer: Any) -> tuple[Any, Any]:
    return layer.input_layernorm, layer.post_attention_layernorm


def _fault_of(fused: FusedMath, shape: DecoderShape, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels are not to be used here. None: they give what the stock modules give."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    x, cos, sin = draw(3, shape.heads, shape.head_dim), draw(3, shape.head_dim), draw(3, shape.head_dim)
    gates, ups = draw(2, 3, shape.ffn_hidden)
    expected = StockMath().turn(x, cos, sin), silu(gates) * ups
    try:
        given = fused.turn(x, cos, sin), fused.gated(gates, ups)
    except Exception as error:  # of compilers and drivers, which raise many kinds
        first_line, *_ = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {first_line}"
    close = _CLOSE[dtype]
    for one, other in zip(given, expected, strict=True):
        if not torch.allclose(one, other, rtol=close, atol=close):
            return f"its numbers differ from stock ones by up to {float((one - other).abs().max()):.2g}"
    return None
