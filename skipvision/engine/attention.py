"""Attention of one step over the packed row of tokens and the cache: the plain form, exact on any device.

The row is [one token for each decoding sequence][chunk][chunk]... A chunk, which is a prompt or a part of one, attends
to what its sequence has written before, and causally to itself, skipped tokens included. A decoding sequence attends to
its cache, into which its new token is written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from skipvision.engine.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Rows [start, stop), which are consecutive tokens of one sequence."""

    start: int
    stop: int
    past_slots: Tensor
    """(tokens,) int64: what the sequence wrote before this step and has not dropped, in any order."""
    last_is_wanted: bool
    """Whether its last row is one of the wanted ones, as a decoding sequence's row always is."""


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """The first rows of the step, one for each decoding sequence."""

    slots: Tensor
    """(sequences, longest) int64: each sequence's cache, its new token included, and any slot after that."""
    lengths: Tensor
    """(sequences,) int64: how many of them count."""


@dataclass(frozen=True, slots=True)
class StepAttention:
    """The `Attend` of one step."""

    cache: KvCache
    written_rows: Tensor
    """(written,) int64: the rows whose keys and values are kept."""
    written_slots: Tensor
    """(written,) int64: where."""
    decodes: DecodeRows | None
    chunks: Sequence[ChunkRows]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        """Attend in one layer; see `families.family.Attend`."""
        self.cache.write(layer, self.written_slots, k[self.written_rows], v[self.written_rows])
        parts = [] if self.decodes is None else [self._decode(layer, self.decodes, q, scaling)]
        at = sum(map(len, parts))
        for chunk in self.chunks:
            asking = int(chunk.last_is_wanted) if only_wanted else chunk.stop - chunk.start
            if asking:
                parts.append(self._read_chunk(layer, chunk, q[at : at + asking], k, v, scaling))
                at += asking
        return torch.cat(parts) if parts else torch.empty_like(q)

    def _decode(self, layer: int, decodes: DecodeRows, q: Tensor, scaling: float) -> Tensor:
        keys, values = self.cache.read(layer, decodes.slots)  # (sequences, longest, kv_heads, head_dim)
        column = torch.arange(decodes.slots.shape[1], device=q.device)
        seen = (column < decodes.lengths[:, None])[:, None, None]  # (sequences, 1, 1, longest)
        queries = q[: len(decodes.slots), :, None]  # (sequences, heads, 1, head_dim)
        return _attend(queries, keys.transpose(1, 2), values.transpose(1, 2), seen, scaling)[:, :, 0]

    def _read_chunk(self, layer: int, chunk: ChunkRows, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """Attention of a chunk's last rows, as many as `q` has."""
        rows = slice(chunk.start, chunk.stop)
        keys, values, past = k[rows], v[rows], len(chunk.past_slots)
        if past:
            past_keys, past_values = self.cache.read(layer, chunk.past_slots)
            keys, values = torch.cat([past_keys, keys]), torch.cat([past_values, values])
        # Without a past the kernel's own causal form needs no mask in memory; a single last row sees everything.
        causal, seen = len(q) == len(keys), None
        if 1 < len(q) < len(keys):
            seen = torch.ones(len(q), len(keys), dtype=torch.bool, device=q.device).tril(len(keys) - len(q))
        queries, keys, values = (x.transpose(0, 1)[None] for x in (q, keys, values))  # (1, heads, tokens, dim)
        return _attend(queries, keys, values, seen, scaling, causal=causal)[0].transpose(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scaling: float, *, causal: bool = False) -> Tensor:
    """(batch, heads, rows, head_dim) of `q`; keys and values may have fewer heads, shared by groups of queries."""
    return scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
