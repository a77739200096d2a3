"""The loss of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skipvision.tuning.journal import StepRecord

_SMOOTHED_OVER = 0.02
"""Share of the steps that one point of the smooth line averages over."""


def plot_loss(steps: Sequence[StepRecord], path: Path) -> None:
    """Draw loss and learning rate by step as a PNG; steps that learnt nothing are left out."""
    learnt = [step for step in steps if step.loss is not None]
    at = [step.step for step in learnt]
    losses = np.array([step.loss for step in learnt], dtype=float)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss, rate = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    loss.plot(at, losses, color="0.75", linewidth=0.8, label="each step")
    loss.plot(at, _smooth(losses), color="C0", label="moving mean")
    loss.set_ylabel("loss, nats per answer token")
    loss.legend(frameon=False)
    rate.plot([step.step for step in steps], [step.learning_rate for step in steps], color="C1")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    for axes in (loss, rate):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value and those before it, over a share of all."""
    window = max(1, round(len(values) * _SMOOTHED_OVER))
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(0, stops - window)
    means: np.ndarray = (sums[stops] - sums[starts]) / (stops - starts)
    return means
