"""One step through the model: pixels, packed row, decoder, logits.

It decides nothing: who is read is the scheduler's, what each token does is the plan's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.adapter_rows import find_adapter_rows
from skipvision.engine.device_attention import choose_attention, choose_decode_steps
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.live_request import Reading
from skipvision.engine.packing import PackedStep, pack
from skipvision.engine.scheduler import Step
from skipvision.engine.stage_clock import StageClock
from skipvision.engine.transfer import to_device
from skipvision.engine.vision_cache import VisionCache
from skipvision.engine.visual import ImageReader
from skipvision.families.adapters import AdapterRows, AdapterSet
from skipvision.families.family import Family


class ModelRunner:
    """The model, the cache it writes, and a clock.

    Args:
        adapters: those that requests may name. None: there are none.
        graphed_decodes: rows of the largest step that runs as a CUDA graph, on a device that has them.
    """

    def __init__(
        self,
        family: Family,
        cache: KvCache,
        vision_cache: VisionCache,
        adapters: AdapterSet | None = None,
        *,
        graphed_decodes: int = 0,
    ) -> None:
        self._family, self._cache = family, cache
        self._adapters = adapters or AdapterSet((), {})
        self._attention = choose_attention(family, cache)
        self._decode_steps = choose_decode_steps(family, cache, self._attention, most=graphed_decodes)
        self.clock = StageClock(family.device)
        """A pass that reads prompts and decodes is shared out by rows."""
        self.images = ImageReader(family, vision_cache, self.clock.timing)

    def describe(self) -> str:
        """Which forms of attention and of decoding steps the device was found to take, in words."""
        chosen = (self._attention, self._decode_steps)
        return "; ".join(each.describe() for each in chosen if each is not None)

    def run(self, step: Step) -> Tensor:
        """Read the step: (speakers, vocab) float32, in the order of `step.speakers`."""
        self._see(step)
        packed = pack(step)
        visual = [tokens for reading in step.chunks if (tokens := _visual_of(reading)) is not None]
        share = len(step.decodes) / len(packed.ids)
        with self.clock.timing(decode=share, prefill=1 - share):
            if self._decode_steps is not None and self._decode_steps.holds(step):
                return self._decode_steps(step, packed)
            with self._adapters.applied(self._adapter_rows(step, packed)):
                return self._read(step, packed, visual)

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

    def _read(self, step: Step, packed: PackedStep, visual: list[Tensor]) -> Tensor:
        hidden = self._family.embed(self._to_device(packed.ids))
        if visual:
            tokens = torch.cat(visual).to(hidden.dtype)
            hidden = hidden.index_copy(0, self._to_device(packed.visual_rows), tokens)
        hidden = self._family.read(
            hidden,
            self._to_device(packed.positions),
            ffn_rows=None if packed.ffn_rows is None else self._to_device(packed.ffn_rows),
            wanted_rows=self._to_device(packed.wanted_rows),
            attend=self._attention.for_step(step, packed),
        )
        return self._family.logits(hidden)

    def _to_device(self, array: np.ndarray) -> Tensor:
        return to_device(array, self._family.device)


def _visual_of(reading: Reading) -> Tensor | None:
    """The visual tokens among the rows of one reading, (tokens, hidden); None: there are none."""
    request = reading.request
    if request.visual is None or not reading.of_prompt:
        return None
    before, there = (int(request.layout.is_visual[:at].sum()) for at in (reading.start, reading.stop))
    return request.visual[before:there] if there > before else None
