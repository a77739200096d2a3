"""Attention of one new token for each sequence over its pages in the cache."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from skipvision.engine.cuda.kernels import attend_to_part, mix_parts
from skipvision.engine.pages import PAGE_TOKENS

_MOST_TILE_TOKENS = 64
"""Read at a time, as long as a row of keys takes `_TILE_ROW_BYTES` or less: four pages."""
_TILE_ROW_BYTES = 256
"""Wider rows are read fewer at a time, or the shared memory of small GPUs would not take the tiles in flight."""
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
    group, (dim_tile, tile_tokens) = heads // len(keys), tile_of(head_dim, keys.itemsize)
    attend_to_part[(sequences, len(keys), parts)](
        q, keys, values, tables, lengths, mixed, log_sums, scaling, tables.shape[1], keys.stride(0), values.stride(0),
        group=group, group_tile=max(_LEAST_DOT, triton.next_power_of_2(group)), head_dim=head_dim, dim_tile=dim_tile,
        page_tokens=PAGE_TOKENS, tile_tokens=tile_tokens,
        factors=triton.language.float32 if _widens(q.dtype) else None,
    )  # fmt: skip
    if parts > 1:
        mix_parts[(sequences * heads,)](
            mixed, log_sums, out, parts=parts, parts_tile=triton.next_power_of_2(parts), head_dim=head_dim,
            dim_tile=dim_tile,
        )  # fmt: skip
    return out


def num_parts(programs: int, *, most_tokens: int) -> int:
    """Into how many parts each sequence is cut, so that `programs` for whole ones become enough for a GPU."""
    return max(1, min(_ENOUGH_PROGRAMS // programs, _MOST_PARTS, -(-most_tokens // _MOST_TILE_TOKENS)))


def tile_of(head_dim: int, value_bytes: int) -> tuple[int, int]:
    """How wide, and how many tokens, the keys are that a program reads at a time."""
    width = max(_LEAST_DOT, triton.next_power_of_2(head_dim))
    tokens = _MOST_TILE_TOKENS * _TILE_ROW_BYTES // (width * value_bytes)
    return width, max(_LEAST_DOT, min(tokens, _MOST_TILE_TOKENS))


def _widens(dtype: torch.dtype) -> bool:
    """Whether products are taken of wider numbers: Triton's interpreter takes the bits of bfloat16 for integers."""
    return dtype == torch.bfloat16 and bool(triton.knobs.runtime.interpret)
