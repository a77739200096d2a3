"""The recipe of the shipped models, from nothing to two folders: `skipvision zoo train`.

First the tower learns to see, and to look at everything that is there (see `tower`). Then, with the tower frozen, the
projector and the decoder learn to describe: from the most salient tokens alone, which is quick, then from all of them.
Then the tower learns to spell, and the decoder to find what is asked for: many questions about each picture, shown
where to look (see `lessons`). From there the recipe forks into two models that are taught the same questions about the
same pictures in as many steps: one with all tokens, and one with Skip-Vision, under the paper's settings scaled to this
encoder by turns, and under none in some batches, so that it answers under any of them. The summary pooling learns
there.

Skipped tokens are hidden from all but the first token of an answer, as they are when their keys and values are
forgotten. The paper trains without that and loses little; a decoder this small leans on the skipped tokens while it
writes.

Matrix products are in bfloat16 where the processor has units for it, weights and sums in float32. A run that is stopped
goes on where it last saved itself.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import save_skip, scaled_paper_setting
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.lessons import LessonStage, Reader
from skipvision.zoo.schedule import Schedule
from skipvision.zoo.shape import VISUAL_TOKENS, build_processor, build_tokenizer, model_config
from skipvision.zoo.tower import TowerStage
from skipvision.zoo.turns import MADE_IN_TURN

SAVE_EVERY = 200
"""Steps from which a stage that was stopped goes on."""
SECONDS_FILE = "seconds.json"
"""What each stage took, in the folder of unfinished stages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerRound:
    """One stage in which the tower learns."""

    name: str
    steps: int
    peak: float
    """Highest learning rate."""
    first_seed: int
    """Of its pictures."""
    kinds: tuple[str, ...] = MADE_IN_TURN
    """Of pictures, in turn."""
    batch: int = 24
    """Pictures a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One stage in which the decoder learns."""

    name: str
    steps: int
    peak: float
    """Highest learning rate."""
    mix: tuple[tuple[str, float], ...]
    """Skip settings, each with its share of the batches."""
    questions: int
    """Asked about each picture, beside its description."""
    first_seed: int
    """Of its pictures."""
    kinds: tuple[str, ...] = MADE_IN_TURN
    """Of pictures, in turn."""
    looking: float = 0.0
    """How much it counts where the decoder looks, beside what it says."""
    batch: int = 32
    """Pictures a step."""


SPELLING = ("text", "scene", "duplicates", "text", "list", "needle", "text", "counting", "scene", "spatial", "global",
            "composition")  # fmt: skip
SEARCHING = ("scene", "text", "needle", "counting", "spatial", "duplicates", "list", "composition", "text", "needle",
             "global")  # fmt: skip
"""Kinds of pictures that need to be searched for what is asked for, and some of the others."""
CAPTIONING = ("scene", "text", "scene", "needle", "scene", "spatial", "scene", "counting", "scene", "list",
              "composition", "scene", "duplicates", "global")  # fmt: skip
"""Mostly scenes, whose captions have to name every one of their things."""
_PLAIN = Round(name="plain", steps=550, peak=6e-3, mix=(("off", 1.0),), kinds=SEARCHING, questions=12, looking=0.5,
               batch=24, first_seed=800_000_000)  # fmt: skip
_PLAIN_CAPTIONS = replace(_PLAIN, name="plain captions", steps=180, peak=4e-3, kinds=CAPTIONING, questions=6,
                          first_seed=850_000_000)  # fmt: skip


def _skipping(round_: Round) -> Round:
    """The same round, under the paper's settings by turns."""
    mix = (("44/69", 0.5), ("28/69", 0.15), ("114/142", 0.15), ("off", 0.2))
    return replace(round_, name=round_.name.replace("plain", "skipping"), mix=mix)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is learnt, and how long. The default is how the shipped models were made; seeds below ten million are held
    out."""

    together: tuple[TowerRound | Round, ...] = (
        TowerRound(name="tower", steps=1900, peak=2e-2, first_seed=10_000_000),
        Round(name="salient", steps=1500, peak=1e-2, mix=(("saliency:80", 1.0),), questions=2, first_seed=200_000_000),
        Round(name="all", steps=600, peak=6e-3, mix=(("off", 1.0),), questions=3, first_seed=300_000_000),
        Round(name="questions", steps=450, peak=6e-3, mix=(("off", 1.0),), questions=4, first_seed=500_000_000),
        TowerRound(name="letters", steps=1400, peak=1.2e-2, kinds=SPELLING, first_seed=600_000_000),
        Round(name="finding", steps=1400, peak=8e-3, mix=(("saliency:80", 0.75), ("off", 0.25)), kinds=SEARCHING,
              questions=12, looking=1.0, batch=24, first_seed=700_000_000),
    )  # fmt: skip
    """What both models have in common."""
    plain: tuple[Round, ...] = (_PLAIN, _PLAIN_CAPTIONS)
    skipping: tuple[Round, ...] = (_skipping(_PLAIN), _skipping(_PLAIN_CAPTIONS))


class Stage(Protocol):
    """Something that learns step by step; a step depends on nothing but its number and the weights."""

    @property
    def module(self) -> nn.Module:
        """What learns."""
        ...

    def step(self, number: int, schedule: Schedule) -> dict[str, float]:
        """Take it; what is worth telling."""
        ...


class Nursery:
    """The model while it grows: weights, summary pooling, tokenizer, and where stages are kept."""

    def __init__(self, work: Path, recipe: Recipe) -> None:
        torch.manual_seed(0)
        self.recipe, self.work = recipe, work
        self.tokenizer = build_tokenizer()
        self.model = LlavaForConditionalGeneration(model_config())
        self.summary = SummaryPooling(self.model.config.text_config.hidden_size)
        self._parts = nn.ModuleDict({"model": self.model, "summary": self.summary})
        work.mkdir(parents=True, exist_ok=True)

    def grow(self, plain: Path, skipping: Path) -> None:
        """Run all stages and write both checkpoints."""
        recipe = self.recipe
        for each in recipe.together:
            self._learn(each)
        common = {name: value.clone() for name, value in self._parts.state_dict().items()}
        for each in recipe.plain:
            self._learn(each)
        self.export(plain, SkipConfig())
        self._parts.load_state_dict(common)
        for each in recipe.skipping:
            self._learn(each)
        self.export(skipping, scaled_paper_setting(VISUAL_TOKENS))

    def export(self, output: Path, skip: SkipConfig) -> None:
        """Write a checkpoint folder: transformers loads it, and it carries its SkipConfig if it has one."""
        fresh = output.with_name(output.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self.model.eval().save_pretrained(fresh)
        build_processor(self.tokenizer).save_pretrained(fresh)
        if not skip.is_off:
            save_skip(fresh, skip, self.summary)
        shutil.rmtree(output, ignore_errors=True)
        fresh.rename(output)

    def _stage(self, round_: TowerRound | Round) -> Stage:
        if isinstance(round_, TowerRound):
            tower = self.model.model.vision_tower
            return TowerStage(tower, kinds=round_.kinds, batch=round_.batch, first_seed=round_.first_seed)
        return lesson_stage(Reader(self.model, self.summary, self.tokenizer), round_)

    def _learn(self, round_: TowerRound | Round) -> None:
        """Run one stage, from where an earlier run left it."""
        name, steps = round_.name, round_.steps
        kept = self.work / f"{name}.safetensors"
        if kept.exists():
            self._parts.load_state_dict(load_file(kept), strict=False)  # tied weights are stored once
            return
        stage = self._stage(round_)
        schedule = Schedule(stage.module, peak=round_.peak, steps=steps, name=name)
        going = _Going(self.work / f"{name}.going", nn.ModuleDict({"parts": self._parts, "stage": stage.module}))
        spent = going.load(schedule)
        started = time.monotonic()
        while schedule.step < steps:
            told = stage.step(schedule.step, schedule)
            if schedule.step % 50 == 0:
                schedule.say(**told)
            if schedule.step % SAVE_EVERY == 0:
                going.save(schedule, spent + time.monotonic() - started)
        _note_seconds(self.work / SECONDS_FILE, name, spent + time.monotonic() - started)
        unfinished = kept.with_suffix(".tmp")
        save_file(_untied(self._parts), unfinished)
        unfinished.rename(kept)
        going.remove()


class _Going:
    """A stage that is not finished yet, in a file."""

    def __init__(self, path: Path, modules: nn.Module) -> None:
        self._path, self._modules = path, modules

    def save(self, schedule: Schedule, seconds: float) -> None:
        state = {"modules": self._modules.state_dict(), "schedule": schedule.state_dict(), "seconds": seconds}
        unfinished = self._path.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.rename(self._path)

    def load(self, schedule: Schedule) -> float:
        """Go on from the file, if there is one; seconds that were spent until then."""
        if not self._path.exists():
            return 0.0
        state: dict[str, Any] = torch.load(self._path, weights_only=True)
        self._modules.load_state_dict(state["modules"])
        schedule.load_state_dict(state["schedule"])
        return float(state["seconds"])

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def lesson_stage(reader: Reader, round_: Round) -> LessonStage:
    """What `round_` asks the reader to learn."""
    return LessonStage(
        reader, round_.mix, kinds=round_.kinds, questions=round_.questions, looking=round_.looking, batch=round_.batch,
        first_seed=round_.first_seed,
    )  # fmt: skip


def train(work: Path, plain: Path, skipping: Path, recipe: Recipe | None = None) -> None:
    """Make both models.

    Args:
        work: where stages are kept; give the same folder again to go on.
        plain: folder of the checkpoint that was taught with all tokens; replaced when it is done.
        skipping: folder of the one that was taught with Skip-Vision.
    """
    Nursery(work, recipe or Recipe()).grow(plain, skipping)


def _note_seconds(path: Path, stage: str, seconds: float) -> None:
    noted = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**noted, stage: round(seconds, 1)}, indent=2) + "\n")


def _untied(module: nn.Module) -> dict[str, Tensor]:
    """The state without second names of one tensor, which safetensors does not store."""
    seen: set[int] = set()
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor.contiguous()
    return state
