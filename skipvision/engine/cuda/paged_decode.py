"""Attention of one new token for each sequence over its pages in the cache, as Triton kernels.

A program reads one part of one sequence's pages for all query heads that share a key head, so that every key and value
is read once. Parts are mixed by the log-sum-exp of their scores.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from skipvision.engine.pages import PAGE_TOKENS

_MOST_TILE_TOKENS = 64
"""Read at a time, as long as a row of keys takes `_TILE_ROW_BYTES` or less: four pages."""
_TILE_ROW_BYTES = 256
"""Three such tiles of keys and of values are in flight, which is what the shared memory of small GPUs takes."""
_LEAST_DOT = 16
"""Rows, columns and depth below which the tensor cores take no product."""
_ENOUGH_PROGRAMS = 1024
"""Several for each multiprocessor of the largest GPUs."""
_MOST_PARTS = 32


def paged_decode(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    lengths: Tensor,
    scaling: float,
    *,
    parts: int | None = None,
) -> Tensor:
    """Attend to the first `lengths` tokens of each sequence: (sequences, heads, head_dim), in the dtype of `q`.

    Nothing is copied to the host, and shapes alone decide what is launched, so that a CUDA graph can hold the call.

    Args:
        q: (sequences, heads, head_dim), contiguous.
        keys, values: (kv_heads, slots, head_dim), one layer of the cache; each head's rows are contiguous. The heads of
            `q` are a multiple of `kv_heads`, and those that share one stand side by side.
        tables: (sequences, most_pages) int32, contiguous: the pages of each sequence, then anything.
        lengths: (sequences,) int32, at least 1.
        parts: into how many each sequence is cut. None: as many as keep a GPU busy.
    """
    sequences, heads, head_dim = q.shape
    if parts is None:
        parts = num_parts(sequences * len(keys), most_tokens=tables.shape[1] * PAGE_TOKENS)
    out = torch.empty_like(q)
    mixed = out if parts == 1 else q.new_empty((*q.shape[:2], parts, head_dim), dtype=torch.float32)
    log_sums = q.new_empty((sequences, heads, parts), dtype=torch.float32)
    group, dim_tile = heads // len(keys), max(_LEAST_DOT, triton.next_power_of_2(head_dim))
    tile_tokens = _MOST_TILE_TOKENS * _TILE_ROW_BYTES // (dim_tile * keys.itemsize)
    _attend_to_part[(sequences, len(keys), parts)](
        q, keys, values, tables, lengths, mixed, log_sums, scaling, tables.shape[1], keys.stride(0), values.stride(0),
        group=group, group_tile=max(_LEAST_DOT, triton.next_power_of_2(group)), head_dim=head_dim, dim_tile=dim_tile,
        page_tokens=PAGE_TOKENS, tile_tokens=max(_LEAST_DOT, min(tile_tokens, _MOST_TILE_TOKENS)),
        factors=tl.float32 if _widens(q.dtype) else None,
    )  # fmt: skip
    if parts > 1:
        _mix_parts[(sequences * heads,)](
            mixed, log_sums, out, parts=parts, parts_tile=triton.next_power_of_2(parts), head_dim=head_dim,
            dim_tile=dim_tile,
        )  # fmt: skip
    return out


def num_parts(programs: int, *, most_tokens: int) -> int:
    """Into how many parts each sequence is cut, so that `programs` for whole ones become enough for a GPU."""
    return max(1, min(_ENOUGH_PROGRAMS // programs, _MOST_PARTS, -(-most_tokens // _MOST_TILE_TOKENS)))


def _widens(dtype: torch.dtype) -> bool:
    """Whether products are taken of wider numbers: Triton's interpreter takes the bits of bfloat16 for integers."""
    return dtype == torch.bfloat16 and bool(triton.knobs.runtime.interpret)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_to_part(
    q: Any, keys: Any, values: Any, tables: Any, lengths: Any, mixed: Any, log_sums: Any,
    scaling: float, most_pages: int, key_head_stride: int, value_head_stride: int,
    group: tl.constexpr, group_tile: tl.constexpr, head_dim: tl.constexpr, dim_tile: tl.constexpr,
    page_tokens: tl.constexpr, tile_tokens: tl.constexpr, factors: tl.constexpr,
) -> None:  # fmt: skip
    """Program (sequence, key head, part): the softmax of one part of the tokens, and the log of its sum."""
    sequence, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts, heads = tl.num_programs(2), tl.num_programs(1) * group
    length = tl.load(lengths + sequence)
    tiles = tl.cdiv(tl.cdiv(length, tile_tokens), parts)  # of each part; the last ones may get none
    start = part * tiles * tile_tokens
    stop = tl.minimum(start + tiles * tile_tokens, length)

    member, dim = tl.arange(0, group_tile), tl.arange(0, dim_tile)
    head = sequence.to(tl.int64) * heads + kv_head * group + member
    in_group, in_head = member < group, dim < head_dim
    query_mask = in_group[:, None] & in_head[None, :]
    query = tl.load(q + head[:, None] * head_dim + dim[None, :], mask=query_mask, other=0.0)
    key_head = keys + kv_head.to(tl.int64) * key_head_stride
    value_head = values + kv_head.to(tl.int64) * value_head_stride

    highest = tl.full((group_tile,), float("-inf"), tl.float32)
    total = tl.zeros((group_tile,), tl.float32)
    acc = tl.zeros((group_tile, dim_tile), tl.float32)
    for first in range(start, stop, tile_tokens):
        token = first + tl.arange(0, tile_tokens)
        seen = token < stop
        page = tl.load(tables + sequence.to(tl.int64) * most_pages + token // page_tokens, mask=seen, other=0)
        slot = page.to(tl.int64) * page_tokens + token % page_tokens
        at, mask = slot[:, None] * head_dim + dim[None, :], seen[:, None] & in_head[None, :]
        key = tl.load(key_head + at, mask=mask, other=0.0)
        value = tl.load(value_head + at, mask=mask, other=0.0)
        scores = _product(query, tl.trans(key), factors) * scaling
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, decay = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None] + _product(weights.to(value.dtype), value, factors)
        highest = higher

    row = head * parts + part
    total = tl.maximum(total, 1.0)  # the highest score adds 1, so only that of an empty part is less: its log is -inf
    tl.store(log_sums + row, highest + tl.log(total), mask=in_group)
    tl.store(mixed + row[:, None] * head_dim + dim[None, :], acc / total[:, None], mask=query_mask)


@triton.jit  # type: ignore[untyped-decorator]
def _product(left: Any, right: Any, factors: tl.constexpr) -> Any:
    """Summed in float32, of factors as they are or, where it says so, of another dtype."""
    if factors is not None:
        left, right = left.to(factors), right.to(factors)
    # As it says only for float32, where the default would round the factors to 10 bits.
    return tl.dot(left, right, input_precision="ieee")


@triton.jit  # type: ignore[untyped-decorator]
def _mix_parts(
    mixed: Any, log_sums: Any, out: Any,
    parts: tl.constexpr, parts_tile: tl.constexpr, head_dim: tl.constexpr, dim_tile: tl.constexpr,
) -> None:  # fmt: skip
    """Program (sequence x head): the parts of one head, each by its share of the whole softmax."""
    row = tl.program_id(0).to(tl.int64)
    part, dim = tl.arange(0, parts_tile), tl.arange(0, dim_tile)
    log_sum = tl.load(log_sums + row * parts + part, mask=part < parts, other=float("-inf"))
    share = tl.exp(log_sum - tl.max(log_sum, 0))
    share = share / tl.sum(share, 0)
    mask = (part < parts)[:, None] & (dim < head_dim)[None, :]
    each = tl.load(mixed + (row * parts + part)[:, None] * head_dim + dim[None, :], mask=mask, other=0.0)
    tl.store(out + row * head_dim + dim, tl.sum(each * share[:, None], 0), mask=dim < head_dim)
