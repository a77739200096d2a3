"""Attention of one step over the packed row of tokens and the cache, exact on any device.

The row is [one token for each decoding sequence][chunk][chunk]... A chunk, which is a prompt or a part of one, attends
to what its sequence has written before, and causally to itself, skipped tokens included. A decoding sequence attends to
its cache, into which its new token is written first.

Nothing is copied where it can be read in place: decoding sequences that stand at equal distances in the cache, and
chunks of one length that have no past, are one call of the kernel over a strided view.
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
    """Rows [start, stop): chunks of one length, one after the other, each of one sequence."""

    start: int
    stop: int
    chunks: int
    past_slots: Tensor | None
    """(past,) int64: what the sequence wrote before this step and has not dropped, in any order. None: nothing; only
    then are there several chunks."""
    bias: Tensor | None
    """(rows, past + rows), where there is a past: 0 where a row sees a token, minus infinity where it does not."""
    last_is_wanted: bool
    """Whether each chunk's last row is one of the wanted ones, as a decoding sequence's row always is."""


@dataclass(frozen=True, slots=True)
class StridedDecodes:
    """Consecutive rows of decoding sequences whose caches stand at equal distances."""

    first_slot: int
    distance: int
    """In slots, from one sequence's first to the next one's."""
    count: int
    longest: int
    """Tokens of the longest cache, new ones included."""
    bias: Tensor | None
    """(count, 1, 1, longest): 0 where a token counts, minus infinity after its sequence's end. None: all count."""


@dataclass(frozen=True, slots=True)
class ScatteredDecodes:
    """Consecutive rows of decoding sequences whose caches lie in several places, a trunk that they share in one."""

    trunk: range
    """The slots of what all of them begin with, which is read once and in place. Empty: nothing."""
    slots: Tensor
    """(count, longest) int64: the rest of each one's cache, its new token included, and any slot after that."""
    bias: Tensor | None
    """(count, 1, 1, longest), for the rest, as in `StridedDecodes`."""

    @property
    def count(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class StepAttention:
    """The `Attend` of one step."""

    cache: KvCache
    written_rows: Tensor | None
    """(written,) int64: the rows whose keys and values are kept. None: all, in order."""
    written_slots: Tensor
    """(written,) int64: where."""
    decodes: Sequence[StridedDecodes | ScatteredDecodes]
    """In the order of their rows, which are the first of the step."""
    chunks: Sequence[ChunkRows]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        """Attend in one layer; see `families.family.Attend`."""
        # As a rule they are: a layer that took few rows may have stored columns, which no fast kernel reads.
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        self._write(layer, k, v)
        out, at = torch.empty_like(q), 0
        for decodes in self.decodes:
            rows = slice(at, at + decodes.count)
            out[rows] = self._decode(layer, decodes, q[rows], scaling)
            at = rows.stop
        for chunk in self.chunks:
            asking = chunk.chunks * chunk.last_is_wanted if only_wanted else chunk.stop - chunk.start
            if asking:
                rows = slice(at, at + asking)
                out[rows] = self._read_chunks(layer, chunk, q[rows], k, v, scaling)
                at = rows.stop
        return out

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        if self.written_rows is not None:
            k, v = k.index_select(0, self.written_rows), v.index_select(0, self.written_rows)
        self.cache.write(layer, self.written_slots, k, v)

    def _decode(self, layer: int, decodes: StridedDecodes | ScatteredDecodes, q: Tensor, scaling: float) -> Tensor:
        # Queries that share a key head are rows of one product: (count, kv_heads, group, head_dim).
        queries = q.view(len(q), self.cache.keys.shape[1], -1, q.shape[2])
        if isinstance(decodes, ScatteredDecodes) and decodes.trunk:
            return self._decode_from_trunk(layer, decodes, queries * scaling).flatten(1, 2)
        if isinstance(decodes, StridedDecodes):
            keys, values = self.cache.rows(
                layer, decodes.first_slot, count=decodes.count, distance=decodes.distance, tokens=decodes.longest
            )
        else:
            keys, values = (x.transpose(0, 1) for x in self.cache.gather(layer, decodes.slots))
        return _attend(queries, keys, values, decodes.bias, scaling).flatten(1, 2)

    def _decode_from_trunk(self, layer: int, decodes: ScatteredDecodes, queries: Tensor) -> Tensor:
        """One softmax over two places: the trunk, read once for all of `queries`, and what each has after it."""
        trunk = slice(decodes.trunk.start, decodes.trunk.stop)
        trunk_keys, trunk_values = self.cache.keys[layer, :, trunk], self.cache.values[layer, :, trunk]
        keys, values = self.cache.gather(layer, decodes.slots)  # (kv_heads, count, longest, head_dim)
        queries = queries.transpose(0, 1)  # (kv_heads, count, group, head_dim)
        by_row = queries.shape[:3]
        of_trunk = (queries.flatten(1, 2) @ trunk_keys.mT).view(*by_row, -1)
        of_rest = queries @ keys.mT
        if decodes.bias is not None:
            of_rest = of_rest + decodes.bias[:, 0]
        weights = torch.cat([of_trunk, of_rest], dim=-1).softmax(-1, dtype=torch.float32).to(queries.dtype)
        of_trunk, of_rest = weights[..., : len(decodes.trunk)], weights[..., len(decodes.trunk) :]
        mixed: Tensor = (of_trunk.flatten(1, 2) @ trunk_values).view(*by_row, -1) + of_rest @ values
        return mixed.transpose(0, 1)

    def _read_chunks(self, layer: int, chunk: ChunkRows, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """Attention of each chunk's last rows, as many as `q` has of each."""
        rows = slice(chunk.start, chunk.stop)
        keys, values = (_by_head(x[rows], chunk.chunks) for x in (k, v))
        if chunk.past_slots is not None:
            past_keys, past_values = self.cache.gather(layer, chunk.past_slots)
            keys, values = torch.cat([past_keys[None], keys], dim=2), torch.cat([past_values[None], values], dim=2)
        queries = _by_head(q, chunk.chunks)
        # A last row alone sees everything; without a past the kernel's own causal form needs no mask in memory.
        all_ask = len(q) == chunk.stop - chunk.start
        causal = all_ask and chunk.past_slots is None
        mixed = _attend(queries, keys, values, chunk.bias if all_ask else None, scaling, causal=causal)
        return mixed.transpose(1, 2).flatten(0, 1)


def _by_head(rows: Tensor, chunks: int) -> Tensor:
    """(chunks x tokens, heads, head_dim) -> (chunks, heads, tokens, head_dim), a view."""
    return rows.view(chunks, -1, *rows.shape[1:]).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scaling: float, *, causal: bool = False) -> Tensor:
    """(batch, heads, rows, head_dim) of `q`; keys and values may have fewer heads, shared by groups of queries."""
    return scaled_dot_product_attention(
        q, k, v, attn_mask=bias, is_causal=causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
