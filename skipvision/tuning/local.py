"""A run in one process; other processes read images ahead of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from skipvision.tuning.run import Run
from skipvision.tuning.trainer import Listener, StepSamples, Trainer
from skipvision.tuning.world import World


def tune(run: Run, listener: Listener | None = None) -> dict[str, Any]:
    """Start a run, go on with it, or find that it is done; its report.

    Raises:
        ConfigError: the output folder belongs to another run, or another process is at it.
        TrainingError: training diverged.
    """
    with run.claimed():
        if run.report() is None:
            Trainer(run, World()).train(lambda start, world: read_ahead(run, start, world), listener)
    report = run.report()
    assert report is not None
    return report


def read_ahead(run: Run, start: int, world: World) -> Iterator[StepSamples]:
    """What one process learns from in each step from `start` on, encoded in order by processes of its own."""
    loaders = run.config.loaders
    yield from DataLoader(
        _Steps(run, world),
        batch_size=None,
        sampler=range(start, len(run.plan)),
        num_workers=loaders,
        collate_fn=_as_it_is,
        # A fork would copy locks that the trainer's threads may hold.
        multiprocessing_context="forkserver" if loaders else None,
    )


class _Steps(Dataset[StepSamples]):
    """The encoded samples of each step."""

    def __init__(self, run: Run, world: World) -> None:
        self._encoder, self._plan, self._world = run.encoder, run.plan, world

    def __getitem__(self, step: int) -> StepSamples:
        return [self._encoder(sample) for sample in self._plan.samples_of(step, self._world)]


def _as_it_is(samples: StepSamples) -> StepSamples:
    return samples
