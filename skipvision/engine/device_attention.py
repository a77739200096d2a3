"""Which attention a device gets: plain torch everywhere, and more where the device can do more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.attention import ChunkRows, ScatteredDecodes, StepAttention, StridedDecodes
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.packing import PackedChunks, PackedDecodes, PackedStep, pack_decodes
from skipvision.engine.scheduler import Step
from skipvision.engine.transfer import to_device
from skipvision.families.family import Attend, Family


class DeviceAttention(Protocol):
    """Makes the attention of every step; it lives as long as the cache."""

    def for_step(self, step: Step, packed: PackedStep) -> Attend:
        """The attention of one step, which has been packed."""
        ...

    def describe(self) -> str:
        """What was chosen, in words."""
        ...


class DecodeSteps(Protocol):
    """A faster way through the model for steps in which everyone decodes."""

    def holds(self, step: Step) -> bool:
        """Whether it takes this step."""
        ...

    def __call__(self, step: Step, packed: PackedStep) -> Tensor:
        """Read a step that has been packed: (decodes, vocab) float32, in the order of its rows."""
        ...

    def describe(self) -> str:
        """What was chosen, in words."""
        ...


def spare_pages(device: torch.device) -> int:
    """Pages of the cache beyond those that requests get: rows that only fill a batch up use the last one."""
    return 1 if device.type == "cuda" else 0


def choose_decode_steps(family: Family, cache: KvCache, attention: DeviceAttention, *, most: int) -> DecodeSteps | None:
    """What the family's device can do for decoding steps of up to `most` rows. None: nothing special."""
    if family.device.type != "cuda" or not most:
        return None
    from skipvision.engine.cuda.graphs import capture

    return capture(family, cache, attention, most=most)


def choose_attention(family: Family, cache: KvCache) -> DeviceAttention:
    """What the family's device can do."""
    plain = PlainAttention(cache)
    if family.device.type != "cuda":
        return plain
    # Only here: it stands on what comes with torch for CUDA alone.
    from skipvision.engine.cuda.attention import choose_cuda_attention

    return choose_cuda_attention(family, cache, plain)


class PlainAttention:
    """torch's own attention over the cache, on any device."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache

    def for_step(self, step: Step, packed: PackedStep) -> StepAttention:
        """See `DeviceAttention.for_step`."""
        caches = [reading.request.cached for reading in step.decodes]
        decodes = pack_decodes(caches, num_slots=self._cache.num_slots)
        return self.of_parts(packed, decodes=decodes, chunks=packed.chunks)

    def describe(self) -> str:
        """See `DeviceAttention.describe`."""
        return "plain torch"

    def of_parts(
        self, packed: PackedStep, *, decodes: Iterable[PackedDecodes], chunks: Iterable[PackedChunks]
    ) -> StepAttention:
        """The attention of some of a step's rows; keys and values are written for all."""
        return StepAttention(
            cache=self._cache,
            written_rows=None if packed.written_rows is None else self.to_device(packed.written_rows),
            written_slots=self.to_device(packed.written_slots),
            decodes=[self._decodes(each) for each in decodes],
            chunks=[self._chunks(each) for each in chunks],
        )

    def to_device(self, array: np.ndarray) -> Tensor:
        """To where the cache is."""
        return to_device(array, self._cache.keys.device)

    def _decodes(self, packed: PackedDecodes) -> StridedDecodes | ScatteredDecodes:
        lengths = packed.lengths - packed.trunk_tokens
        longest = int(lengths.max())
        bias = None
        if (lengths < longest).any():
            seen = np.arange(longest) < lengths[:, None, None, None]
            bias = self.to_device(np.where(seen, 0, -np.inf)).to(self._cache.keys.dtype)
        if packed.slots is None:
            return StridedDecodes(packed.first_slot, packed.distance, len(lengths), longest, bias)
        trunk = range(packed.first_slot, packed.first_slot + packed.trunk_tokens)
        return ScatteredDecodes(trunk, self.to_device(packed.slots), bias)

    def _chunks(self, packed: PackedChunks) -> ChunkRows:
        past_slots = bias = None
        if past := len(packed.past_slots):
            past_slots = self.to_device(packed.past_slots)
            rows = packed.stop - packed.start
            bias = self._cache.keys.new_full((rows, past + rows), -torch.inf).triu(past + 1)
        return ChunkRows(packed.start, packed.stop, packed.chunks, past_slots, bias, packed.speaks)
