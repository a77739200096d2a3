"""The training loop: the same for one process and for many, for a run that starts and for one that goes on.

What a step learns from, its learning rate and its random numbers follow from the settings and the number of the step;
everything else is in the checkpoint. So a run that was killed and goes on takes the very steps it would have taken.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from skipvision.errors import TrainingError
from skipvision.families import choose_device, choose_dtype, load_family
from skipvision.method.plan import SkipConfig, plan_prompt
from skipvision.tuning.checkpoints import Checkpoints
from skipvision.tuning.encoding import EncodedSample, SetAside
from skipvision.tuning.export import export, trained_state
from skipvision.tuning.journal import Journal, StepRecord, read_set_aside, read_steps
from skipvision.tuning.packing import PackedSamples, passes
from skipvision.tuning.plot import plot_loss
from skipvision.tuning.run import CHECKPOINTS, MODEL, PLOT, REPORT, Run
from skipvision.tuning.schedule import optimizer_of
from skipvision.tuning.trainee import Trainee
from skipvision.tuning.world import World

StepSamples = list[EncodedSample | SetAside]
Feed = Callable[[int, World], Iterator[StepSamples]]
"""From a step on, from 0, what one process learns from in each step."""
Listener = Callable[[StepRecord, int], None]
"""Told of every step, and of how many there are."""


class Trainer:
    """One process of a run.

    Args:
        run: what is learnt.
        world: the processes that learn together; this is one of them.
        device: a torch device name. None: what the settings say.
    """

    def __init__(self, run: Run, world: World, *, device: str | None = None) -> None:
        config = run.config
        self._run, self._world = run, world
        self._device = choose_device(device or config.device)
        self._dtype = choose_dtype(config.dtype, self._device)
        torch.manual_seed(config.seed)  # new adapters and a new summary pooling are alike everywhere
        family = load_family(run.model, device=str(self._device), dtype="float32")
        self._trainee = Trainee(family, run.skip, learning=config.learning, lora=config.lora).train()
        if config.gradient_checkpointing:
            family.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self._module = world.share(self._trainee, self._trainee.layers, self._dtype)
        self._optimizer = optimizer_of(self._trainee.learnable(), weight_decay=config.weight_decay)
        self._checkpoints = Checkpoints(run.folder / CHECKPOINTS, world, keep=config.keep)

    def train(self, feed: Feed, listener: Listener | None = None) -> None:
        """Take every step that is left, and write the finished checkpoint and the report."""
        done = self._checkpoints.latest() or 0
        if done:
            self._checkpoints.load(done, self._module, self._optimizer)
        steps = len(self._run.plan)
        with Journal(self._run.folder, after=done) if self._world.is_first else nullcontext() as journal:
            for step, samples in zip(range(done, steps), feed(done, self._world), strict=True):
                record, set_aside = self._step(step, samples)
                if journal is not None:
                    journal.note(record, set_aside)
                if listener is not None:
                    listener(record, steps)
                if (step + 1) % self._run.config.save_every == 0 or step + 1 == steps:
                    self._checkpoints.save(step + 1, self._module, self._optimizer)
        self._finish()

    def _step(self, step: int, samples: StepSamples) -> tuple[StepRecord, list[SetAside]]:
        started = time.perf_counter()
        self._seed(step)
        learnt = [sample for sample in samples if isinstance(sample, EncodedSample)]
        set_aside: list[SetAside] = self._world.gather([each for each in samples if isinstance(each, SetAside)])
        counts = _counts(learnt)
        totals = self._world.sum([counts[name] for name in _COUNTED], self._device)
        total = {name: int(value) for name, value in zip(_COUNTED, totals, strict=True)}
        rate = self._run.rate.at(step)
        loss = norm = None
        if total["answer_tokens"]:
            loss = self._backward(learnt, total["answer_tokens"])
            norm = self._move(rate)
            if not np.isfinite([loss, norm]).all():
                raise TrainingError(
                    f"step {step + 1} has loss {loss} and gradient norm {norm}: training diverged; lower learning_rate "
                    "or raise warm_up, in a new output folder"
                )
        record = StepRecord(
            step=step + 1, loss=loss, learning_rate=rate, gradient_norm=norm, set_aside=len(set_aside),
            seconds=time.perf_counter() - started, **total,
        )  # fmt: skip
        return record, set_aside

    def _backward(self, samples: Sequence[EncodedSample], answer_tokens: int) -> float:
        """Gradients of the mean loss over the answers of all processes; that loss."""
        self._optimizer.zero_grad(set_to_none=True)
        forgetting = self._run.config.forgetting
        packs = [
            PackedSamples.of(some, forgetting=forgetting)
            for some in passes(samples, most_tokens=self._run.config.tokens_per_pass)
        ]
        # All processes exchange as often, or they would wait for each other for ever.
        rounds = self._world.most(len(packs), self._device)
        packs += [PackedSamples.of([_FILLER], forgetting=False)] * (rounds - len(packs))
        summed = torch.zeros((), device=self._device)
        with self._trainee.skipping():
            for number, packed in enumerate(packs):
                with self._exchanging(number == rounds - 1), self._autocast():
                    loss = self._module(packed.to(self._device))
                    # Processes average their gradients; the mean is over the answers of all of them.
                    (loss * (self._world.size / answer_tokens)).backward()
                summed += loss.detach()
        return self._world.sum([summed.item()], self._device)[0] / answer_tokens

    def _move(self, rate: float) -> float:
        """One step of the optimizer; the length of the gradient before it was clipped."""
        parameters = [*self._trainee.learnable().values()]
        norm: Tensor = nn.utils.clip_grad_norm_(parameters, self._run.config.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _exchanging(self, wanted: bool) -> Any:
        """Gradients are exchanged once in a step, with the last pass."""
        if isinstance(self._module, DistributedDataParallel):
            return nullcontext() if wanted else self._module.no_sync()
        if self._world.size > 1:
            self._module.set_requires_gradient_sync(wanted)  # type: ignore[operator]
        return nullcontext()

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)

    def _seed(self, step: int) -> None:
        """Random numbers of a step are its own, so that a run that goes on draws the same."""
        sequence = np.random.SeedSequence([self._run.config.seed, step, self._world.rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))

    def _finish(self) -> None:
        state = trained_state(self._module)  # all processes give their part
        if self._world.is_first:
            export(self._run, state, self._run.folder / MODEL)
            plot_loss(read_steps(self._run.folder), self._run.folder / PLOT)
            report = _report(self._run)
            (self._run.folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        self._world.wait()


_COUNTED = ("samples", "images", "answer_tokens", "tokens", "visual_tokens")
_FILLER = EncodedSample(
    text_ids=np.zeros(1, dtype=np.int64),
    is_answer=np.zeros(1, dtype=bool),
    image_offsets=(),
    pixels=(),
    plan=plan_prompt(SkipConfig(), text_tokens=1, visual_tokens=[]),
)
"""Says nothing; for processes that have fewer passes than others."""


def _counts(samples: Sequence[EncodedSample]) -> dict[str, int]:
    return {
        "samples": len(samples),
        "images": sum(len(sample.pixels) for sample in samples),
        "answer_tokens": sum(int(sample.is_answer.sum()) for sample in samples),
        "tokens": sum(sample.plan.prompt_tokens for sample in samples),
        "visual_tokens": sum(sample.plan.visual_tokens for sample in samples),
    }


def _report(run: Run) -> dict[str, Any]:
    """Sums over the whole run, from its own lines."""
    steps = read_steps(run.folder)
    codes = Counter(entry["code"] for entry in read_set_aside(run.folder))
    return {
        "steps": len(steps),
        "skip": run.skip.describe(),
        "learning": run.config.learning,
        "first_loss": next((step.loss for step in steps if step.loss is not None), None),
        "last_loss": next((step.loss for step in reversed(steps) if step.loss is not None), None),
        **{name: sum(getattr(step, name) for step in steps) for name in _COUNTED},
        "set_aside": sum(codes.values()),
        "set_aside_by_code": dict(codes),
        "seconds": sum(step.seconds for step in steps),
    }
