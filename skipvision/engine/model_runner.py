"""One step through the model: pixels, packed row, decoder, logits.

It decides nothing: who is read is the scheduler's, what each token does is the plan's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.adapter_rows import find_adapter_rows
from skipvision.engine.attention import ChunkRows, ScatteredDecodes, StepAttention, StridedDecodes
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.live_request import Reading
from skipvision.engine.packing import PackedChunks, PackedDecodes, PackedStep, pack
from skipvision.engine.scheduler import Step
from skipvision.engine.vision_cache import VisionCache
from skipvision.engine.visual import ImageReader
from skipvision.families.adapters import AdapterRows, AdapterSet
from skipvision.families.family import Family


class ModelRunner:
    """The model, the cache it writes, and a clock."""

    def __init__(
        self, family: Family, cache: KvCache, vision_cache: VisionCache, adapters: AdapterSet | None = None
    ) -> None:
        self._family, self._cache = family, cache
        self._adapters = adapters or AdapterSet((), {})
        self.images = ImageReader(family, vision_cache, self.timing)
        self.stage_seconds = dict.fromkeys(("encode", "merge", "prefill", "decode", "sample"), 0.0)
        """Cumulative. A pass that reads prompts and decodes is shared out by rows."""

    def run(self, step: Step) -> Tensor:
        """Read the step: (speakers, vocab) float32, in the order of `step.speakers`."""
        self._see(step)
        packed = pack(step, num_slots=self._cache.num_slots)
        visual = [tokens for reading in step.chunks if (tokens := _visual_of(reading)) is not None]
        share = len(step.decodes) / len(packed.ids)
        with self.timing(decode=share, prefill=1 - share), self._adapters.applied(self._adapter_rows(step, packed)):
            return self._read(packed, visual)

    def _adapter_rows(self, step: Step, packed: PackedStep) -> AdapterRows:
        found = find_adapter_rows(step, packed)
        return {kind: {name: self._to_device(rows) for name, rows in own.items()} for kind, own in found.items()}

    def _see(self, step: Step) -> None:
        """Encode the images of the prompts that begin with this step."""
        seeing = [reading.request for reading in step.chunks if reading.start == 0 and reading.request.images]
        if not seeing:
            return
        read = iter(self.images.read([image for request in seeing for image in request.images]))
        for request in seeing:
            tokens, encoded = zip(*(next(read) for _ in request.images), strict=True)
            request.visual, request.images_encoded = torch.cat(tokens), sum(encoded)

    def _read(self, packed: PackedStep, visual: list[Tensor]) -> Tensor:
        hidden = self._family.embed(self._to_device(packed.ids))
        if visual:
            tokens = torch.cat(visual).to(hidden.dtype)
            hidden = hidden.index_copy(0, self._to_device(packed.visual_rows), tokens)
        hidden = self._family.read(
            hidden,
            self._to_device(packed.positions),
            ffn_rows=None if packed.ffn_rows is None else self._to_device(packed.ffn_rows),
            wanted_rows=self._to_device(packed.wanted_rows),
            attend=self._attention(packed),
        )
        return self._family.logits(hidden)

    def _attention(self, packed: PackedStep) -> StepAttention:
        return StepAttention(
            cache=self._cache,
            written_rows=None if packed.written_rows is None else self._to_device(packed.written_rows),
            written_slots=self._to_device(packed.written_slots),
            decodes=[self._decodes(decodes) for decodes in packed.decodes],
            chunks=[self._chunks(chunks) for chunks in packed.chunks],
        )

    def _decodes(self, packed: PackedDecodes) -> StridedDecodes | ScatteredDecodes:
        lengths = packed.lengths - packed.trunk_tokens
        longest = int(lengths.max())
        bias = None
        if (lengths < longest).any():
            seen = np.arange(longest) < lengths[:, None, None, None]
            bias = self._to_device(np.where(seen, 0, -np.inf)).to(self._family.dtype)
        if packed.slots is None:
            return StridedDecodes(packed.first_slot, packed.distance, len(lengths), longest, bias)
        trunk = range(packed.first_slot, packed.first_slot + packed.trunk_tokens)
        return ScatteredDecodes(trunk, self._to_device(packed.slots), bias)

    def _chunks(self, packed: PackedChunks) -> ChunkRows:
        past_slots = bias = None
        if past := len(packed.past_slots):
            past_slots = self._to_device(packed.past_slots)
            rows = packed.stop - packed.start
            bias = torch.full((rows, past + rows), -torch.inf, dtype=self._family.dtype, device=self._family.device)
            bias = bias.triu(past + 1)
        return ChunkRows(packed.start, packed.stop, packed.chunks, past_slots, bias, packed.speaks)

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._family.device)

    @contextmanager
    def timing(self, **shares: float) -> Iterator[None]:
        """Add the block's seconds to stages, by their shares."""
        start = time.perf_counter()
        yield
        if self._family.device.type == "cuda":
            torch.cuda.synchronize(self._family.device)  # or the time of launching kernels would be measured
        seconds = time.perf_counter() - start
        for stage, share in shares.items():
            self.stage_seconds[stage] += share * seconds


def _visual_of(reading: Reading) -> Tensor | None:
    """The visual tokens among the rows of one reading, (tokens, hidden); None: there are none."""
    request = reading.request
    if request.visual is None or not reading.of_prompt:
        return None
    before, there = (int(request.layout.is_visual[:at].sum()) for at in (reading.start, reading.stop))
    return request.visual[before:there] if there > before else None
