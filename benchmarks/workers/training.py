"""Fine-tuning as a worker: steps on one batch, with all visual tokens or fewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import LlavaConfig, LlavaNextConfig

from benchmarks.random_llava import random_family
from benchmarks.workers.rss import peak_rss_bytes, reset_peak_rss
from benchmarks.workers.serve import serve
from skipvision.families import choose_device, choose_dtype
from skipvision.families.llava import LlavaFamily
from skipvision.method.plan import SkipConfig, plan_prompt
from skipvision.tuning import LoraConfig
from skipvision.tuning.encoding import EncodedSample
from skipvision.tuning.packing import PackedSamples, passes
from skipvision.tuning.schedule import optimizer_of
from skipvision.tuning.trainee import Trainee

ANSWER_SHARE = 0.4
"""Of the text tokens, how many are to be said; conversations of LLaVA's fine-tuning set are of this kind."""


class Training:
    """One model and its optimizer over one batch."""

    def load(
        self, *, folder: str, config: dict[str, Any], skip: str, samples: int, text_tokens: int, tokens_per_pass: int,
        device: str, lora: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """Draw weights and a batch; the same batch whatever is skipped.

        Args:
            config: as `to_dict` gives it.
        """
        kind = LlavaNextConfig if config["model_type"] == LlavaNextConfig.model_type else LlavaConfig
        self._device = choose_device(device)
        self._dtype = choose_dtype("auto", self._device)
        family = random_family(Path(folder), kind.from_dict(config), device=self._device, dtype=torch.float32)
        self._trainee = Trainee(
            family, SkipConfig.parse(skip), learning=("projector", "decoder"), lora=LoraConfig() if lora else None
        ).train()
        family.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self._optimizer = optimizer_of(self._trainee.learnable(), weight_decay=0.0)
        drawn = _samples(family, self._trainee.skip, count=samples, text_tokens=text_tokens)
        self._packs = [PackedSamples.of(some, forgetting=False) for some in passes(drawn, most_tokens=tokens_per_pass)]
        plan = drawn[0].plan
        return {
            "visual_tokens": plan.visual_tokens,
            "decoder_tokens": plan.prompt_tokens,
            "ffn_tokens": plan.ffn_tokens,
            "passes": len(self._packs),
            "dtype": str(self._dtype).removeprefix("torch."),
            "learnable_parameters": sum(parameter.numel() for parameter in self._trainee.learnable().values()),
        }

    def step(self) -> dict[str, float]:
        """One step of the optimizer: seconds of its parts, and the most memory that the process or the GPU held."""
        self._reset_peak()
        seconds = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        answers = sum(len(packed.wanted_ids) for packed in self._packs)
        self._optimizer.zero_grad(set_to_none=True)
        with self._trainee.skipping():
            for packed in self._packs:
                started = self._now()
                with self._autocast():
                    loss = self._trainee(packed.to(self._device)) / answers
                read = self._now()
                loss.backward()
                seconds["forward"] += read - started
                seconds["backward"] += self._now() - read
        started = self._now()
        torch.nn.utils.clip_grad_norm_([*self._trainee.learnable().values()], 1.0)
        self._optimizer.step()
        seconds["optimizer"] = self._now() - started
        return {"seconds": sum(seconds.values()), **seconds, "peak_bytes": self._peak(), "loss": loss.item()}

    def look(self) -> dict[str, float]:
        """Seconds of the vision side alone, which skipping leaves as it is."""
        started = self._now()
        with torch.no_grad(), self._autocast():
            for packed in self._packs:
                self._trainee._blocks(packed.pixels)
        return {"seconds": self._now() - started}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def _reset_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak_rss()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else peak_rss_bytes()


def _samples(family: LlavaFamily, skip: SkipConfig, *, count: int, text_tokens: int) -> Sequence[EncodedSample]:
    """Conversations of one turn about a picture of noise each."""
    rng = np.random.default_rng(0)
    side = 2 * family.model.config.vision_config.image_size  # cut into tiles where the model does that
    samples = []
    for _ in range(count):
        pixels = family.preparer.prepare(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        plan = plan_prompt(skip, text_tokens=text_tokens, visual_tokens=[family.preparer.visual_tokens(pixels)])
        is_answer = np.arange(text_tokens) >= text_tokens * (1 - ANSWER_SHARE)
        ids = rng.integers(10, 500, text_tokens)
        samples.append(EncodedSample(ids, is_answer, (5,), (pixels,), plan))
    return samples


if __name__ == "__main__":
    serve(Training())
