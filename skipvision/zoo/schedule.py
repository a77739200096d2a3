"""Learning rates, optimisers and progress lines shared by the stages of the recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skipvision.families import choose_dtype

WARM_UP_STEPS = 150
ADAM_SHARE = 0.2
"""The rate of everything that AdamW moves, as a share of the rate of the matrices inside the layers."""


class Schedule:
    """Linear warm-up, over a third of the steps at most, then cosine to a twentieth of the peak.

    Gradients are clipped to norm 1. Muon moves the matrices inside transformer layers, AdamW the rest: embeddings,
    norms, heads.
    """

    def __init__(self, module: nn.Module, *, peak: float, steps: int, name: str) -> None:
        learnable = {path: p for path, p in module.named_parameters() if p.requires_grad}
        inside = [p for path, p in learnable.items() if ".layers." in path and p.ndim == 2]
        others = [p for path, p in learnable.items() if ".layers." not in path and p.ndim > 1]
        vectors = [p for p in learnable.values() if p.ndim <= 1]
        self.muon = Muon(inside, lr=0.0)
        groups = [{"params": others, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
        self.parameters, self.peak, self.steps, self.name = [*learnable.values()], peak, steps, name
        self.step = 0
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on from here, beside the weights."""
        return {"step": self.step, "muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.step = state["step"]
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])

    def learn(self, loss: Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        for optimizer in (self.muon, self.adam):
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        rate = self.peak * self._share()
        for optimizer, share in ((self.muon, 1.0), (self.adam, ADAM_SHARE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        self.step += 1

    def say(self, **numbers: float) -> None:
        """Print one progress line."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        elapsed = time.monotonic() - self._started
        print(f"{self.name}  step {self.step}/{self.steps}  {elapsed:.0f} s  {shown}", flush=True)

    def _share(self) -> float:
        warm_up = min(WARM_UP_STEPS, self.steps // 3)
        if self.step < warm_up:
            return (self.step + 1) / warm_up
        progress = (self.step - warm_up) / max(1, self.steps - warm_up)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def multiplying() -> torch.autocast:
    """Multiplies in bfloat16 inside the `with` block, on processors that have units for it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=_dtype() == torch.bfloat16)


def _dtype() -> torch.dtype:
    return choose_dtype("auto", torch.device("cpu"))


class Muon(torch.optim.Optimizer):
    """Muon (K. Jordan, 2024) with the step size of arXiv:2502.16982.

    `torch.optim.Muon` orthogonalises in bfloat16, which is dozens of times slower than float32 on processors that have
    no units for it; this one chooses.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": 0.95, "weight_decay": 0.02})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            learning = [matrix for matrix in group["params"] if matrix.grad is not None]
            updates = []
            for matrix in learning:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                updates.append(matrix.grad.lerp(momentum, group["momentum"]))
            for matrix, update in zip(learning, _orthogonalised_all(updates), strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


def _orthogonalised_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Each of them; those of one shape together, since one by one they are too small to keep a processor busy."""
    results: dict[int, Tensor] = {}
    for shape in {matrix.shape for matrix in matrices}:
        alike = [at for at, matrix in enumerate(matrices) if matrix.shape == shape]
        stacked = torch.stack([matrices[at] for at in alike]).to(_dtype())
        results |= dict(zip(alike, orthogonalised(stacked), strict=True))
    return [results[at] for at in range(len(matrices))]


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values around 1, by five quintic Newton-Schulz steps.

    Args:
        matrices: (..., rows, columns), any float dtype.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    flat: Tensor = matrices.mT if is_tall else matrices
    flat = flat / flat.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = flat @ flat.mT
        flat = 3.4445 * flat + (-4.7750 * gram + 2.0315 * gram @ gram) @ flat
    return flat.mT if is_tall else flat
