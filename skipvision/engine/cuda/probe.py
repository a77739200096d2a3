"""What this GPU and this torch can do for a model of one shape: tried once at the start, by what comes out.

What does not work, or gives other numbers than plain torch, is not used, and a note says why. Afterwards nothing is
tried any more: an error in a step is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skipvision.engine.cuda.reference import packed_one_by_one, paged_one_by_one
from skipvision.engine.cuda.varlen import PackedAttention, Segments, adapt
from skipvision.method.flops import DecoderShape

PagedDecode = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""See `paged_decode.paged_decode`."""

# Of float32 the order of sums; of the narrow types a few roundings of numbers around 1.
_CLOSE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True, slots=True)
class Abilities:
    """The fast forms of attention that work."""

    paged_decode: PagedDecode | None
    packed: PackedAttention | None
    notes: tuple[str, ...]
    """Of each that does not: what is used instead, and why."""


def probe(shape: DecoderShape, *, device: torch.device, dtype: torch.dtype) -> Abilities:
    """Try both forms on a few random tokens of the model's head sizes."""
    trials = _Trials(shape, device, dtype)
    paged_decode, no_paging = trials.paged_decode()
    packed, no_packing = trials.packed()
    notes = []
    if no_paging:
        notes.append(f"decoding gathers the cache, without CUDA graphs: {no_paging}")
    if no_packing:
        notes.append(f"prompts are read one length at a time: {no_packing}")
    return Abilities(paged_decode, packed, tuple(notes))


class _Trials:
    """Three sequences, the last with more keys than queries."""

    def __init__(self, shape: DecoderShape, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=generator).to(device, dtype)

        self._device, self._dtype, self._scaling = device, dtype, shape.head_dim**-0.5
        self._q = draw(50, shape.heads, shape.head_dim)
        self._k, self._v = draw(2, 96, shape.kv_heads, shape.head_dim)

    def packed(self) -> tuple[PackedAttention | None, str | None]:
        """The form, or why there is none."""
        if self._dtype not in (torch.float16, torch.bfloat16):
            return None, f"torch's packed attention takes float16 and bfloat16, not {self._dtype}"
        keys, form = [1, 17, 78], None
        for queries in ([1, 17, 32], [1, 1, 1]):  # one for each: kernels turn grouped heads into rows of one product
            segments = Segments.of(queries, keys, self._device)
            inputs = (self._q[: sum(queries)], self._k, self._v, segments, self._scaling)
            try:
                from torch.nn.attention.varlen import varlen_attn

                form = adapt(varlen_attn)
                mixed = form(*inputs)
            except Exception as error:  # of compilers and drivers, which raise many kinds
                return None, _why(error)
            if difference := self._difference(mixed, packed_one_by_one(*inputs)):
                return None, difference
        return form, None

    def paged_decode(self) -> tuple[PagedDecode | None, str | None]:
        """The form, or why there is none."""
        lengths = torch.tensor([1, 40, 33], dtype=torch.int32, device=self._device)
        tables = torch.tensor([[5, 0, 0], [4, 0, 2], [4, 0, 3]], dtype=torch.int32, device=self._device)
        keys, values = (x.transpose(0, 1).contiguous() for x in (self._k, self._v))
        inputs = (self._q[:3].contiguous(), keys, values, tables, lengths, self._scaling)
        try:
            from skipvision.engine.cuda.paged_decode import paged_decode

            mixed = paged_decode(*inputs)
        except Exception as error:  # of compilers and drivers, which raise many kinds
            return None, _why(error)
        difference = self._difference(mixed, paged_one_by_one(*inputs))
        return (None, difference) if difference else (paged_decode, None)

    def _difference(self, mixed: Tensor, expected: Tensor) -> str | None:
        largest = float((mixed.float() - expected.float()).abs().max())
        return None if largest <= _CLOSE[self._dtype] else f"its numbers differ from plain ones by up to {largest:.2g}"


def _why(error: Exception) -> str:
    first_line, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first_line}"
