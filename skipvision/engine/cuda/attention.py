"""Attention of one step on an NVIDIA GPU: decoding rows through page tables, all chunks in one packed call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.attention import StepAttention
from skipvision.engine.cuda.probe import PagedDecode, probe
from skipvision.engine.cuda.varlen import PackedAttention, Segments
from skipvision.engine.device_attention import DeviceAttention, PlainAttention
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.packing import PackedChunks, PackedStep
from skipvision.engine.scheduler import Step
from skipvision.engine.transfer import to_device
from skipvision.families.family import Family

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackedRows:
    """The chunks of a step, or those of them whose last row is wanted, one after the other."""

    segments: Segments
    places: tuple[tuple[int, slice], ...]
    """How many earlier tokens stand before some rows of the step, and which rows these are."""
    past_slots: Tensor | None
    """(past,) int64: where all those earlier tokens are. None: there are none."""

    @classmethod
    def of(cls, chunks: Sequence[PackedChunks], device: torch.device, *, only_last: bool) -> PackedRows | None:
        """None: nothing is asked.

        Args:
            only_last: of the chunks that speak, the last row of each is asked; else every row of every chunk is.
        """
        asking = [chunk for chunk in chunks if chunk.speaks or not only_last]
        if not asking:
            return None
        queries: list[int] = []
        keys: list[int] = []
        places: list[tuple[int, slice]] = []
        for chunk in asking:
            tokens, past = (chunk.stop - chunk.start) // chunk.chunks, len(chunk.past_slots)
            queries += [1 if only_last else tokens] * chunk.chunks
            keys += [past + tokens] * chunk.chunks
            if places and not past and places[-1][1].stop == chunk.start:
                places[-1] = places[-1][0], slice(places[-1][1].start, chunk.stop)
            else:
                places.append((past, slice(chunk.start, chunk.stop)))
        past_slots = np.concatenate([chunk.past_slots for chunk in asking])
        on_device = to_device(past_slots, device) if len(past_slots) else None
        return cls(Segments.of(queries, keys, device), tuple(places), on_device)

    def with_past(self, cache: KvCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of these chunks, (keys, kv_heads, head_dim); views of `k` and `v` if nothing precedes."""
        if self.past_slots is None:
            return self._joined(k, None), self._joined(v, None)
        keys, values = cache.gather(layer, self.past_slots)
        return self._joined(k, keys.transpose(0, 1)), self._joined(v, values.transpose(0, 1))

    def _joined(self, of_step: Tensor, past: Tensor | None) -> Tensor:
        rows = [of_step[place] for _, place in self.places]
        if past is None:
            return rows[0] if len(rows) == 1 else torch.cat(rows)
        before = torch.split(past, [tokens for tokens, _ in self.places])
        return torch.cat(list(chain.from_iterable(zip(before, rows, strict=True))))


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of a step as one packed call."""

    attention: PackedAttention
    every_row: PackedRows | None
    last_rows: PackedRows | None


@dataclass(frozen=True, slots=True)
class CudaStepAttention:
    """The `Attend` of one step."""

    cache: KvCache
    plain: StepAttention
    """Writes keys and values; and reads the chunks where `chunks` is None."""
    paged_decode: PagedDecode
    tables: Tensor
    """(decodes, most_pages) int32: the pages of each decoding sequence, whose rows are the first of the step."""
    lengths: Tensor
    """(decodes,) int32: tokens of each cache, the new one included."""
    chunks: Chunks | None

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        """Attend in one layer; see `families.family.Attend`."""
        decodes = len(self.tables)
        # First, since it writes: a decoding sequence attends to its new token in the cache.
        of_chunks = self._read_chunks(layer, q[decodes:], k, v, scaling, only_wanted=only_wanted)
        if not decodes:
            return of_chunks
        pages = self.cache.keys[layer], self.cache.values[layer], self.tables, self.lengths
        of_decodes = self.paged_decode(q[:decodes].contiguous(), *pages, scaling)
        return torch.cat([of_decodes, of_chunks]) if len(of_chunks) else of_decodes

    def _read_chunks(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        if self.chunks is None:
            return self.plain(layer, q, k, v, scaling, only_wanted=only_wanted)
        self.plain.write(layer, k, v)
        rows = self.chunks.last_rows if only_wanted else self.chunks.every_row
        if rows is None:
            return q
        keys, values = rows.with_past(self.cache, layer, k, v)
        return self.chunks.attention(q, keys, values, rows.segments, scaling)


class CudaAttention:
    """Makes the attention of every step.

    Args:
        packed: None: chunks are read by plain torch.
    """

    def __init__(
        self, cache: KvCache, plain: PlainAttention, paged_decode: PagedDecode, packed: PackedAttention | None
    ):
        self._cache, self._plain = cache, plain
        self.paged_decode, self._packed = paged_decode, packed

    def for_step(self, step: Step, packed: PackedStep) -> CudaStepAttention:
        """See `DeviceAttention.for_step`."""
        tables, lengths = page_tables(step)
        return CudaStepAttention(
            cache=self._cache,
            plain=self._plain.of_parts(packed, decodes=(), chunks=packed.chunks if self._packed is None else ()),
            paged_decode=self.paged_decode,
            tables=self._plain.to_device(tables),
            lengths=self._plain.to_device(lengths),
            chunks=None if self._packed is None else self._chunks(packed.chunks, self._packed),
        )

    def describe(self) -> str:
        """See `DeviceAttention.describe`."""
        prompts = "plain torch" if self._packed is None else "one packed call"
        return f"page tables for decoding, {prompts} for prompts"

    def _chunks(self, chunks: Sequence[PackedChunks], attention: PackedAttention) -> Chunks:
        every_row, last_rows = (
            PackedRows.of(chunks, self._cache.keys.device, only_last=only_last) for only_last in (False, True)
        )
        return Chunks(attention, every_row, last_rows)


def page_tables(step: Step, *, most_pages: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Of the decoding requests of a packed step: pages, (decodes, most_pages), and tokens, (decodes,); int32 both.

    After a sequence's pages comes page 0.

    Args:
        most_pages: None: as many as the longest has.
    """
    caches = [reading.request.cached for reading in step.decodes]
    held = np.array([len(cache.pages) for cache in caches], dtype=np.int64)
    tables = np.zeros((len(caches), most_pages or held.max(initial=0)), dtype=np.int32)
    pages = chain.from_iterable(cache.pages for cache in caches)
    tables[np.arange(tables.shape[1]) < held[:, None]] = np.fromiter(pages, dtype=np.int32, count=held.sum())
    return tables, np.array([cache.cached_tokens for cache in caches], dtype=np.int32)


def choose_cuda_attention(family: Family, cache: KvCache, plain: PlainAttention) -> DeviceAttention:
    """What works on the family's device; what does not is said in the log."""
    abilities = probe(family.shape, device=family.device, dtype=family.dtype)
    for note in abilities.notes:
        log.warning("%s: %s", family.device, note)
    if abilities.paged_decode is None:
        return plain
    return CudaAttention(cache, plain, abilities.paged_decode, abilities.packed)
