"""One fine-tuning run as it stands on disk: its settings, resolved and checked, and its folder.

run.json        the settings it was started with, and the data they meant
steps.jsonl     one line per step; set_aside.jsonl: one per sample that could not be learnt from
tensorboard/    the same numbers as TensorBoard's events
checkpoints/    where it goes on after a kill
model/          the finished checkpoint
loss.png        its loss and learning rate
report.json     what it came to
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skipvision.errors import ConfigError
from skipvision.families.checkpoint import check_fits, choose_skip, read_config, resolve_model
from skipvision.method.plan import SkipConfig
from skipvision.tuning.encoding import SampleEncoder
from skipvision.tuning.schedule import CosineRate, StepPlan
from skipvision.tuning.settings import TuneConfig
from skipvision.tuning.sources import Samples

RUN, REPORT, MODEL, CHECKPOINTS, PLOT = "run.json", "report.json", "model", "checkpoints", "loss.png"
_HOW_NOT_WHAT = frozenset(
    {"workers", "sharding", "loaders", "save_every", "keep", "device", "gradient_checkpointing", "tokens_per_pass",
     "ray_address", "output"}
)  # fmt: skip
"""Settings that a run may change when it goes on: they decide how it is computed, not what it learns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything about a run that its settings decide. It travels to the workers."""

    config: TuneConfig
    model: str
    skip: SkipConfig
    encoder: SampleEncoder
    plan: StepPlan

    @classmethod
    def prepare(cls, config: TuneConfig) -> Run:
        """Resolve and check the settings, before any weight is read.

        Raises:
            ConfigError: a file, the model or the setting of skipping does not fit.
        """
        checkpoint = read_config(config.model)
        skip = SkipConfig() if config.stage == "projector" else choose_skip(config.skip, checkpoint)
        check_fits(skip, checkpoint)
        if skip.reducer is not None:
            raise ConfigError(f"skip is {config.skip!r}, which drops tokens without training: use off, auto or R/S")
        context = checkpoint.text_config.max_position_embeddings
        if config.max_tokens > context:
            raise ConfigError(f"max_tokens is {config.max_tokens} and the model holds {context} tokens; lower it")
        samples = Samples(config.files)
        encoder = SampleEncoder(
            samples=samples,
            model=resolve_model(config.model),
            skip=skip,
            max_tokens=config.max_tokens,
            images=Path(config.images) if config.images else None,
            allow_networks=config.allow_networks,
        )
        plan = StepPlan(
            samples=samples, batch=config.batch, epochs=config.epochs, most_steps=config.steps, seed=config.seed
        )
        return cls(config=config, model=resolve_model(config.model), skip=skip, encoder=encoder, plan=plan)

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def rate(self) -> CosineRate:
        """The learning rate of every step."""
        return CosineRate(peak=self.config.peak_rate, steps=len(self.plan), warm_up=self.config.warm_up)

    def report(self) -> dict[str, Any] | None:
        """What the run came to; None until it is done."""
        path = self.folder / REPORT
        return json.loads(path.read_text()) if path.exists() else None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The run's folder, for this process alone while it is inside.

        Raises:
            ConfigError: another process is at it, or the folder holds another run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(f"another process is at work on {self.folder}; wait for it") from error
            self._check_same()
            yield

    def _check_same(self) -> None:
        """The folder's settings are these; an empty folder gets them."""
        path = self.folder / RUN
        mine = json.loads(json.dumps(self._identity()))
        if not path.exists():
            path.write_text(json.dumps(mine, indent=2) + "\n")
            return
        theirs = json.loads(path.read_text())
        changed = [name for name in mine if mine[name] != theirs.get(name) and name not in _HOW_NOT_WHAT]
        if changed:
            differ = "; ".join(f"{name} was {theirs.get(name)!r} and is {mine[name]!r}" for name in changed)
            raise ConfigError(f"{self.folder} holds a run with other settings ({differ}): choose another output")

    def _identity(self) -> dict[str, Any]:
        """The settings, with what they meant when the run began."""
        sizes = {path: Path(path).stat().st_size for path in self.config.files}
        return asdict(self.config) | {"skips": self.skip.describe(), "samples": len(self.plan.samples), "bytes": sizes}
