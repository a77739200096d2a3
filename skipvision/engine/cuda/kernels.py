"""Attention through page tables, as Triton kernels.

A program reads one part of one sequence's pages for all query heads that share a key head, so that every key and value
is read once. Parts are mixed by the log-sum-exp of their scores. `paged_decode` launches them and says what each is.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_to_part(
    q, keys, values, tables, lengths, mixed, log_sums,
    scaling, most_pages, key_head_stride, value_head_stride,
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


@triton.jit
def _product(left, right, factors: tl.constexpr):
    """Summed in float32, of factors as they are or, where it says so, of another dtype."""
    if factors is not None:
        left, right = left.to(factors), right.to(factors)
    # As it says only for float32, where the default would round the factors to 10 bits.
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def mix_parts(
    mixed, log_sums, out,
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
