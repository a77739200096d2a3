"""FLOPs by summation, token by token and matrix by matrix: what the formulas are tested against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder with a gated FFN."""

    hidden: int
    ffn_hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


def counted_prefill(
    shape: Shape, *, kept: int, skipped: int, keys_of: Callable[[int], int], full_heads: bool = False, head: bool = True
) -> int:
    """Multiply-adds of reading a prompt, token by token and matrix by matrix, times two.

    Args:
        kept, skipped: tokens that run the FFN, and that do not.
        keys_of: how many keys the token at a position is compared with.
        full_heads: count keys and values as if every query head had its own.
        head: count the output head, run for one token.
    """
    kv = shape.hidden if full_heads else shape.kv_heads * shape.head_dim
    queries = shape.heads * shape.head_dim
    total = 0
    for position in range(kept + skipped):
        total += shape.hidden * queries + 2 * shape.hidden * kv + queries * shape.hidden
        total += 2 * shape.heads * shape.head_dim * keys_of(position)  # scores, then the weighted sum
    total += kept * 3 * shape.hidden * shape.ffn_hidden
    return 2 * (shape.layers * total + (shape.hidden * shape.vocab if head else 0))


def counted_decode(shape: Shape, *, cached: int, output: int) -> int:
    """Generating `output` tokens after the first, each of which sees the cache and itself."""
    return sum(
        counted_prefill(shape, kept=1, skipped=0, keys_of=lambda _, step=step: cached + step)
        for step in range(1, output + 1)
    )
