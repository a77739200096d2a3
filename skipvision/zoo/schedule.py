"""Learning-rate schedule and progress lines shared by the stages of the recipe."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 150


class Schedule:
    """AdamW with linear warm-up, then cosine to a twentieth of the peak; gradients clipped to norm 1."""

    def __init__(self, parameters: list[nn.Parameter], *, peak: float, steps: int, name: str) -> None:
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
        self.parameters, self.peak, self.steps, self.name = parameters, peak, steps, name
        self.step = 0
        self._started = time.monotonic()

    def learn(self, loss: Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * self._share()
        self.optimizer.step()
        self.step += 1

    def say(self, **numbers: float) -> None:
        """Print one progress line."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        elapsed = time.monotonic() - self._started
        print(f"{self.name}  step {self.step}/{self.steps}  {elapsed:.0f} s  {shown}", flush=True)

    def _share(self) -> float:
        if self.step < WARM_UP_STEPS:
            return (self.step + 1) / WARM_UP_STEPS
        progress = (self.step - WARM_UP_STEPS) / max(1, self.steps - WARM_UP_STEPS)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
