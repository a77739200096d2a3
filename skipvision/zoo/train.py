"""The recipe of the shipped model, from nothing to a folder: `skipvision zoo train`.

First the tower learns to see, and to look at everything that is there (see `tower`). Then, with the tower frozen, the
projector and the decoder learn to caption and answer, in rounds: all visual tokens first, then with Skip-Vision active
in a share of the batches, the paper's 100/156 of 576 scaled to this encoder; the summary pooling learns there.

Skipped tokens are hidden from all but the first token of an answer, as they are when their keys and values are
forgotten. The paper trains without that and loses little; a decoder this small leans on the skipped tokens while it
writes, and loses most of its captions.

Each stage is saved when it ends, so that a run that is stopped goes on with the stage it was in. Two hours on two cores
in float32.
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
from skipvision.zoo.tower import SightLessons, train_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingRound:
    """One round of captions and questions."""

    name: str
    steps: int
    peak: float
    """Highest learning rate."""
    skip_share: float
    """Share of the batches that skip; the others see all tokens."""
    questions: int = 3
    """Asked beside the caption of each picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Sizes of the stages. The default is how the shipped model was made; seeds below ten million are held out."""

    batch: int = 16
    """Pictures a step."""
    tower_steps: int = 4500
    tower_peak: float = 2e-2
    rounds: tuple[ReadingRound, ...] = (
        ReadingRound(name="all", steps=300, peak=1e-2, skip_share=0.0),
        ReadingRound(name="skip", steps=3200, peak=1e-2, skip_share=0.75),
        ReadingRound(name="settle", steps=700, peak=4e-3, skip_share=0.4),
        ReadingRound(name="captions", steps=800, peak=6e-3, skip_share=0.2, questions=1),
    )


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
        self.stage("tower", self._see)
        for number, round_ in enumerate(self.recipe.rounds):
            self.stage(round_.name, partial(self._read, round_, 20_000_000 + 10_000_000 * number))

    def export(self, output: Path) -> None:
        """Write the checkpoint folder: transformers loads it, and it carries its SkipConfig."""
        fresh = output.with_name(output.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self.model.eval().save_pretrained(fresh)
        build_processor(self.tokenizer).save_pretrained(fresh)
        save_skip(fresh, scaled_paper_setting(VISUAL_TOKENS), self.summary)
        shutil.rmtree(output, ignore_errors=True)
        fresh.rename(output)

    def _see(self) -> None:
        train_tower(
            SightLessons(self.model.model.vision_tower),
            steps=self.recipe.tower_steps,
            batch=self.recipe.batch,
            peak=self.recipe.tower_peak,
            first_seed=10_000_000,
            seed=0,
        )

    def _read(self, round_: ReadingRound, first_seed: int) -> None:
        teach(
            Reader(self.model, self.summary, self.tokenizer),
            lessons(self.tokenizer, first_seed=first_seed, seed=first_seed, questions=round_.questions),
            name=round_.name,
            steps=round_.steps,
            batch=self.recipe.batch,
            peak=round_.peak,
            skip=scaled_paper_setting(VISUAL_TOKENS),
            skip_share=round_.skip_share,
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
