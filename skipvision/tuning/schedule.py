"""Which samples each step learns from, and how fast."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from skipvision.tuning.sources import Samples
from skipvision.tuning.world import World


@dataclass(kw_only=True, slots=True)
class StepPlan:
    """The samples of every step, known in advance: a function of the settings alone, so that a run can be resumed."""

    samples: Samples
    batch: int
    epochs: int
    most_steps: int | None
    seed: int
    _order: tuple[int, np.ndarray] | None = field(default=None, init=False)

    def __len__(self) -> int:
        """Steps of the whole run."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.most_steps is None else min(steps, self.most_steps)

    @property
    def steps_per_epoch(self) -> int:
        """The last may have fewer samples than the others."""
        return -(-len(self.samples) // self.batch)

    def samples_of(self, step: int, world: World) -> list[int]:
        """Numbers of the samples that one process learns from in a step, from 0."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self.samples.order(seed=self.seed, epoch=epoch))
        together = self._order[1][at * self.batch : (at + 1) * self.batch]
        return together[world.rank :: world.size].tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineRate:
    """Linear warm-up to the peak, then a cosine to nothing."""

    peak: float
    steps: int
    warm_up: float
    """Share of the steps."""

    def at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        climbing = math.ceil(self.warm_up * self.steps)
        if step < climbing:
            return self.peak * (step + 1) / climbing
        done = (step - climbing) / max(1, self.steps - climbing)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


def optimizer_of(learnable: dict[str, torch.nn.Parameter], *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what learns; norms and biases do not decay. Rates are set before every step."""
    matrices = [parameter for parameter in learnable.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in learnable.values() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0)
