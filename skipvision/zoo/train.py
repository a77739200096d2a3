"""The recipe of the shipped model, from nothing to a folder: `skipvision zoo train`.

Six stages, well over an hour on two cores in float32:

0. *tower*: sees (see `tower`); two rounds, each with its own warm-up and fresh heads.
1. *all*: projector and decoder learn to caption and answer with all visual tokens; tower frozen.
2. *skip*: the same with Skip-Vision active in most batches, the paper's 100/156 of 576 scaled to this encoder; the
   summary pooling learns here.
3. *forget*: the same, with skipped tokens hidden from all but the first token of an answer, as they are when the keys
   and values of skipped tokens are forgotten. The paper trains stage 2 only and loses little; a decoder this small
   leans on the skipped tokens while it writes, and loses most of its captions without this stage.
4. *gaze*: the tower's CLS token learns to look at everything that is there, so that it is retained (see `tower`);
   with the looks of stage 0 a quarter of all shapes had no retained token.
5. *settle*: stage 3 again, with the tokens that are retained now; two rounds.

Each stage is saved when it ends, so that a run that is stopped goes on with the stage it was in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import save_skip, scaled_paper_setting
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.lessons import Reader, lessons, teach
from skipvision.zoo.shape import VISUAL_TOKENS, build_processor, build_tokenizer, model_config
from skipvision.zoo.tower import SightLessons, teach_gaze, train_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerRound:
    """One round of stage 0."""

    steps: int
    batch: int
    peak: float
    first_seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Sizes of the stages. The default is how the shipped model was made; seeds below ten million are held out."""

    tower: tuple[TowerRound, ...] = (
        TowerRound(steps=900, batch=32, peak=1.5e-3, first_seed=10_000_000),
        TowerRound(steps=2000, batch=16, peak=1e-3, first_seed=11_000_000),
    )
    all_steps: int = 300
    skip_steps: int = 1300
    forget_steps: int = 750
    gaze_steps: int = 400
    gaze_peak: float = 5e-4
    settle_steps: tuple[int, ...] = (1000, 550)
    batch: int = 16
    peak: float = 1.5e-3
    skip_share: float = 0.75
    """Share of the batches of stages 2, 3 and 5 that skip."""


class Nursery:
    """The model while it grows: weights, summary pooling, tokenizer, and where stages are kept."""

    def __init__(self, work: Path, recipe: Recipe) -> None:
        torch.manual_seed(0)
        self.recipe, self.work = recipe, work
        self.tokenizer = build_tokenizer()
        self.model = LlavaForConditionalGeneration(model_config())
        self.summary = SummaryPooling(self.model.config.text_config.hidden_size)
        work.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, learn: Callable[[], None]) -> None:
        """Run one stage, or take what an earlier run left of it."""
        parts = nn.ModuleDict({"model": self.model, "summary": self.summary})
        kept = self.work / f"{name}.safetensors"
        if kept.exists():
            parts.load_state_dict(load_file(kept), strict=False)  # tied weights are stored once
            return
        learn()
        unfinished = kept.with_suffix(".tmp")
        save_file(_untied(parts), unfinished)
        unfinished.rename(kept)

    def grow(self) -> None:
        """Run all stages."""
        share = self.recipe.skip_share
        for number, round_ in enumerate(self.recipe.tower):
            self.stage(f"tower{number}", partial(self._see, number, round_))
        self.stage("all", partial(self._read, "all", self.recipe.all_steps, 0.0, 20_000_000))
        self.stage("skip", partial(self._read, "skip", self.recipe.skip_steps, share, 30_000_000))
        self.stage("forget", partial(self._read, "forget", self.recipe.forget_steps, share, 40_000_000))
        self.stage("gaze", self._look)
        for number, steps in enumerate(self.recipe.settle_steps):
            first_seed = 50_000_000 + 10_000_000 * number
            self.stage(f"settle{number}", partial(self._read, f"settle{number}", steps, share, first_seed))

    def export(self, output: Path) -> None:
        """Write the checkpoint folder: transformers loads it, and it carries its SkipConfig."""
        fresh = output.with_name(output.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self.model.eval().save_pretrained(fresh)
        build_processor(self.tokenizer).save_pretrained(fresh)
        save_skip(fresh, scaled_paper_setting(VISUAL_TOKENS), self.summary)
        shutil.rmtree(output, ignore_errors=True)
        fresh.rename(output)

    def _see(self, number: int, round_: TowerRound) -> None:
        train_tower(
            SightLessons(self.model.model.vision_tower),
            steps=round_.steps, batch=round_.batch, peak=round_.peak, first_seed=round_.first_seed, seed=number,
        )  # fmt: skip

    def _look(self) -> None:
        teach_gaze(
            self.model.model.vision_tower,
            steps=self.recipe.gaze_steps,
            batch=self.recipe.batch,
            peak=self.recipe.gaze_peak,
            first_seed=12_000_000,
            seed=5,
        )

    def _read(self, name: str, steps: int, skip_share: float, first_seed: int) -> None:
        teach(
            Reader(self.model, self.summary, self.tokenizer),
            lessons(self.tokenizer, first_seed=first_seed, seed=first_seed),
            name=name,
            steps=steps,
            batch=self.recipe.batch,
            peak=self.recipe.peak,
            skip=scaled_paper_setting(VISUAL_TOKENS),
            skip_share=skip_share,
            forgetting=name not in ("all", "skip"),
            seed=first_seed,
        )


def train(work: Path, output: Path, recipe: Recipe | None = None) -> None:
    """Make the model.

    Args:
        work: where finished stages are kept; give the same folder again to go on.
        output: the checkpoint folder; replaced when all stages are done.
    """
    nursery = Nursery(work, recipe or Recipe())
    nursery.grow()
    nursery.export(output)


def _untied(module: nn.Module) -> dict[str, Tensor]:
    """The state without second names of one tensor, which safetensors does not store."""
    seen: set[int] = set()
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor.contiguous()
    return state
