"""Steps in which everyone decodes, as CUDA graphs: one for each of a few batch sizes, over buffers that stay.

A step takes the smallest graph that holds it. Rows that only fill it up read and write one page that belongs to nobody.
Launching a decoder's many small kernels one by one takes longer than running them; a graph is launched once.
"""

from __future__ import annotations

import logging
from bisect import bisect_left

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.attention import StepAttention
from skipvision.engine.cuda.attention import CudaAttention, CudaStepAttention, page_tables
from skipvision.engine.cuda.probe import PagedDecode
from skipvision.engine.device_attention import DecodeSteps, DeviceAttention
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.packing import PackedStep
from skipvision.engine.pages import PAGE_TOKENS, pages_for
from skipvision.engine.scheduler import Step
from skipvision.families.family import Family

log = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256)
"""Larger steps run without a graph: their kernels take longer than to launch them."""


def batches_up_to(rows: int) -> tuple[int, ...]:
    """The batch sizes that steps of 1 to `rows` rows need."""
    return BATCHES[: bisect_left(BATCHES, rows) + 1]


class _Buffer:
    """A tensor on the device that is always the same memory, and where the host writes what goes there."""

    def __init__(self, filling: np.ndarray, device: torch.device) -> None:
        self.tensor = torch.from_numpy(filling).to(device, copy=True)
        self._staged = torch.from_numpy(filling.copy())
        if device.type == "cuda":
            self._staged = self._staged.pin_memory()
        self._filling, self._host = filling, self._staged.numpy()

    def fill(self, rows: np.ndarray, batch: int) -> None:
        """Put `rows` into the first of `batch` rows, and what it began with into the others."""
        self._host[len(rows) : batch] = self._filling[len(rows) : batch]
        self._host[: len(rows)] = rows
        # The last copy is done: the host has read that step's tokens before it came to this one.
        self.tensor[:batch].copy_(self._staged[:batch], non_blocking=True)


class PaddedDecode:
    """Decoding steps, filled up to one of a few batch sizes, over buffers that stay.

    Args:
        cache: its last page belongs to no request.
        most: rows of the largest step.
    """

    def __init__(self, family: Family, cache: KvCache, paged_decode: PagedDecode, *, most: int) -> None:
        self._family, self._cache, self._paged_decode = family, cache, paged_decode
        self.batches = batches_up_to(most)
        rows, last_page = self.batches[-1], cache.num_slots // PAGE_TOKENS - 1
        self._most_pages = min(pages_for(family.context_tokens), last_page)

        def buffer(*size: int, dtype: type, value: int = 0) -> _Buffer:
            return _Buffer(np.full(size, value, dtype=dtype), family.device)

        self._ids, self._positions = (buffer(rows, dtype=np.int64) for _ in range(2))
        self._slots = buffer(rows, dtype=np.int64, value=last_page * PAGE_TOKENS)
        self._tables = buffer(rows, self._most_pages, dtype=np.int32, value=last_page)
        self._lengths = buffer(rows, dtype=np.int32, value=1)
        self._all_rows = torch.arange(rows, device=family.device)

    def holds(self, step: Step) -> bool:
        """Whether everyone in a step decodes, with the model as it was recorded, and they are not too many."""
        as_recorded = all(reading.request.adapter is None for reading in step.decodes)
        return as_recorded and not step.chunks and len(step.decodes) <= self.batches[-1]

    def __call__(self, step: Step, packed: PackedStep) -> Tensor:
        """See `DecodeSteps`."""
        return self.read(self.fill(step, packed))[: len(packed.ids)]

    def describe(self) -> str:
        """See `DecodeSteps.describe`."""
        return f"decoding steps of up to {self.batches[-1]} rows filled up"

    def fill(self, step: Step, packed: PackedStep) -> int:
        """Put a step into the buffers; the batch size that holds it."""
        batch = self.batches[bisect_left(self.batches, len(packed.ids))]
        tables, lengths = page_tables(step, most_pages=self._most_pages)
        for buffer, rows in (
            (self._ids, packed.ids),
            (self._positions, packed.positions),
            (self._slots, packed.written_slots),
            (self._tables, tables),
            (self._lengths, lengths),
        ):
            buffer.fill(rows, batch)
        return batch

    def read(self, batch: int) -> Tensor:
        """What is in the buffers, through the model: (batch, vocab) float32."""
        hidden = self._family.read(
            self._family.embed(self._ids.tensor[:batch]),
            self._positions.tensor[:batch],
            ffn_rows=None,
            wanted_rows=self._all_rows[:batch],
            attend=CudaStepAttention(
                cache=self._cache,
                plain=StepAttention(self._cache, None, self._slots.tensor[:batch], (), ()),
                paged_decode=self._paged_decode,
                tables=self._tables.tensor[:batch],
                lengths=self._lengths.tensor[:batch],
                chunks=None,
            ),
        )
        return self._family.logits(hidden)


class DecodeGraphs:
    """A `PaddedDecode` whose passes through the model have been recorded, one for each batch size."""

    @torch.inference_mode()
    def __init__(self, padded: PaddedDecode) -> None:
        self._padded = padded
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        pool = torch.cuda.graph_pool_handle()
        for batch in reversed(padded.batches):  # the largest first: the others then fit into its memory
            self._warm_up(batch)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                logits = padded.read(batch)
            self._graphs[batch] = graph, logits

    def holds(self, step: Step) -> bool:
        """See `PaddedDecode.holds`."""
        return self._padded.holds(step)

    def __call__(self, step: Step, packed: PackedStep) -> Tensor:
        """See `DecodeSteps`."""
        graph, logits = self._graphs[self._padded.fill(step, packed)]
        graph.replay()
        return logits[: len(packed.ids)].clone()  # all graphs share that memory, and a caller's hook may keep its row

    def describe(self) -> str:
        """See `DecodeSteps.describe`."""
        return f"{self._padded.describe()} and recorded as CUDA graphs"

    def _warm_up(self, batch: int) -> None:
        """Kernels are compiled, and libraries take their workspaces, before anything is recorded."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            self._padded.read(batch)
        main.wait_stream(side)


def capture(family: Family, cache: KvCache, attention: DeviceAttention, *, most: int) -> DecodeSteps | None:
    """Record decoding steps of up to `most` rows. None: it does not work here, and the log says why."""
    if not isinstance(attention, CudaAttention):
        return None  # the probe has said why
    try:
        return DecodeGraphs(PaddedDecode(family, cache, attention.paged_decode, most=most))
    except RuntimeError as error:  # a decoder that looks at its numbers from the host cannot be recorded
        log.warning("%s: decoding goes without CUDA graphs: %s", family.device, error)
        return None
