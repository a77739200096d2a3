"""Unfinished runs on disk: what learns, its optimizer and how far it came; written by all workers, read by any number.

A checkpoint appears under its name when it is whole. `torch.distributed.checkpoint` stores every tensor once, whoever
held which part of it, so that a run may go on with more or fewer workers than it began with.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from skipvision.tuning.world import World

_NAME = re.compile(r"step-(\d+)")
_ONLY_WHAT_LEARNS = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: seen by all workers.
        keep: how many are kept, the latest.
    """

    def __init__(self, folder: Path, world: World, *, keep: int) -> None:
        self._folder, self._world, self._keep = folder, world, keep

    def latest(self) -> int | None:
        """The step after which the latest was written; None if there is none."""
        return max(self._steps(), default=None)

    def save(self, step: int, module: nn.Module, optimizer: Optimizer) -> None:
        """Write one, and remove those that are too many."""
        unfinished = self._folder / f"unfinished-{step}"
        if self._world.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self._world.wait()
        weights, moments = get_state_dict(module, optimizer, options=_ONLY_WHAT_LEARNS)
        with _quiet():
            save({"weights": weights, "moments": moments}, checkpoint_id=unfinished, no_dist=self._world.size == 1)
        if self._world.is_first:
            unfinished.rename(self._path(step))
            for old in sorted(self._steps())[: -self._keep]:
                shutil.rmtree(self._path(old))
        self._world.wait()

    def load(self, step: int, module: nn.Module, optimizer: Optimizer) -> None:
        """Put everything back as it was after a step."""
        weights, moments = get_state_dict(module, optimizer, options=_ONLY_WHAT_LEARNS)
        state: dict[str, Any] = {"weights": weights, "moments": moments}
        with _quiet():
            load(state, checkpoint_id=self._path(step), no_dist=self._world.size == 1)
        set_state_dict(
            module,
            optimizer,
            model_state_dict=state["weights"],
            optim_state_dict=state["moments"],
            options=_ONLY_WHAT_LEARNS,
        )

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08}"

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(name[1]) for name in names if name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that one process is alone, which it was told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
