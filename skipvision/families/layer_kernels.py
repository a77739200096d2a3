"""What decoder layers do between their matrix products, as Triton kernels: one pass over memory for each.

Factors are read as they are and computed with in float32, so that a narrow type is rounded once.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def turn_heads(
    x, cos, sin, heads: tl.constexpr, heads_tile: tl.constexpr, half: tl.constexpr, half_tile: tl.constexpr
) -> None:
    """Program (row): all heads of one row of (rows, heads, 2 * half), turned in place by its (rows, 2 * half)."""
    row = tl.program_id(0).to(tl.int64)
    head, dim = tl.arange(0, heads_tile), tl.arange(0, half_tile)
    in_half = dim < half
    mask = (head < heads)[:, None] & in_half[None, :]
    at = x + (row * heads + head)[:, None] * (2 * half) + dim[None, :]
    left, right = tl.load(at, mask=mask).to(tl.float32), tl.load(at + half, mask=mask).to(tl.float32)
    cosine, sine = cos + row * 2 * half + dim, sin + row * 2 * half + dim
    left_cos, left_sin = tl.load(cosine, mask=in_half).to(tl.float32), tl.load(sine, mask=in_half).to(tl.float32)
    right_cos = tl.load(cosine + half, mask=in_half).to(tl.float32)
    right_sin = tl.load(sine + half, mask=in_half).to(tl.float32)
    tl.store(at, left * left_cos[None, :] - right * left_sin[None, :], mask=mask)
    tl.store(at + half, right * right_cos[None, :] + left * right_sin[None, :], mask=mask)


@triton.jit
def gate_by_silu(gates, ups, count, tile: tl.constexpr) -> None:
    """Program (tile): `gates` becomes silu(gates) * ups, value by value."""
    at = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    mask = at < count
    gate, up = tl.load(gates + at, mask=mask).to(tl.float32), tl.load(ups + at, mask=mask).to(tl.float32)
    tl.store(gates + at, gate * tl.sigmoid(gate) * up, mask=mask)
