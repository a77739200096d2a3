"""How the shipped models learn to describe and answer, with all tokens and with Skip-Vision.

One picture teaches several things at once: its description and some questions follow the same image block, each hidden
from the others by the attention mask and each starting at the same position, exactly as it is asked alone later. A long
answer counts for more than a short one, but not by as much as it is longer.
The tower is frozen, as LLaVA's is; the projector, the decoder and the summary pooling learn.

Pictures are rendered, so it is known where an answer is read. A word of an answer says little about that, and finding
what is asked for is learnt long after describing if it is learnt from words alone; so one head is drawn there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from skipvision.families.clip import layers_to_read, run_tower
from skipvision.method.plan import SkipConfig, SkipPlan, plan_prompt
from skipvision.method.skip_ffn import FfnRows, skipping_ffn
from skipvision.method.split import split_visual_tokens
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.gaze import gaze_loss, watching_gaze
from skipvision.zoo.photograph import draw_stretch, normalise, photograph
from skipvision.zoo.schedule import Schedule, multiplying
from skipvision.zoo.shape import VISUAL_TOKENS
from skipvision.zoo.sights import GRID, patch_at
from skipvision.zoo.turns import Turn, picture, questions_about

BEFORE, AFTER = "<s>USER: <image>", "\n"
"""What the chat template writes around an image."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with its answer, as token ids."""

    ids: tuple[int, ...]
    answer_start: int
    """The first of `ids` that the model has to say."""
    looks: tuple[tuple[int, int], ...] = ()
    """(token of `ids`, visual token): what is read there is said in that."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One picture and its turns."""

    pixels: np.ndarray
    """(side, side, 3) uint8"""
    turns: tuple[Exchange, ...]


def lessons(tokenizer: PreTrainedTokenizerFast, seeds: range, *, kinds: Sequence[str], questions: int) -> list[Lesson]:
    """A lesson for each seed, the kinds of pictures in turn; the same ones for the same seeds."""
    return [_lesson(tokenizer, seed, kinds[seed % len(kinds)], questions) for seed in seeds]


def _lesson(tokenizer: PreTrainedTokenizerFast, seed: int, kind: str, questions: int) -> Lesson:
    rng = random.Random(f"lesson {seed}")
    stretch = draw_stretch(rng)
    asked = questions_about(kind, seed, questions=questions)
    return Lesson(photograph(picture(kind, seed), rng, stretch=stretch),
                  tuple(_exchange(tokenizer, turn, stretch) for turn in asked))  # fmt: skip


class Reader:
    """The model as it is taught: the loss of a batch of lessons under one `SkipConfig`."""

    def __init__(
        self, model: LlavaForConditionalGeneration, summary: SummaryPooling, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.model, self.summary, self.tokenizer = model, summary, tokenizer
        self.core: Any = model.model
        self.layers = layers_to_read(model.config.vision_feature_layer, len(self.core.vision_tower.encoder.layers))
        self.before = _ids(tokenizer, BEFORE)[:-1]  # the image's placeholder is replaced by its tokens
        self.after = _ids(tokenizer, AFTER)

    def learnable(self) -> nn.ModuleDict:
        """Everything but the tower."""
        core = self.core
        parts = {"projector": core.multi_modal_projector, "decoder": core.language_model, "summary": self.summary}
        return nn.ModuleDict(parts)

    def loss(self, batch: list[Lesson], config: SkipConfig, *, forgetting: bool = False) -> Tensor:
        """The loss of what is said, see `losses`."""
        return self.losses(batch, config, forgetting=forgetting)[0]

    def losses(self, batch: list[Lesson], config: SkipConfig, *, forgetting: bool = False) -> tuple[Tensor, Tensor]:
        """How far what is said is from the answers, and how far the gaze is from where they are read.

        Args:
            forgetting: hide the skipped tokens from the answers, as they are when an answer is decoded. The token
                before an answer still sees them: an answer's first token comes from the prefill.

        Returns:
            The mean cross-entropy over the tokens of the answers, each weighted by its answer's length to the power
            -0.5; and the same over those of which it is known where they are read, of a head's attention to the
            retained tokens, see `Gaze`.
        """
        plan = plan_prompt(config, text_tokens=len(self.before) + len(self.after), visual_tokens=[VISUAL_TOKENS])
        prefix, retained = self._prefix(torch.from_numpy(np.stack([lesson.pixels for lesson in batch])), config)
        turns = _Turns(batch, start=plan.prompt_tokens)
        embeds = torch.cat([prefix, self.core.get_input_embeddings()(turns.ids)], dim=1)
        ffn_rows, decoder = FfnRows(self._ffn_rows(plan, embeds)), self.core.language_model
        with skipping_ffn(decoder.layers, ffn_rows), watching_gaze(decoder) as gaze:
            hidden = decoder(
                inputs_embeds=embeds,
                attention_mask=turns.mask(plan.skipped_spans([len(self.before)]) if forgetting else ()),
                position_ids=turns.positions(),
                use_cache=False,
            ).last_hidden_state
            said = self.model.lm_head(hidden[:, plan.prompt_tokens :][turns.speaks])
        each = cross_entropy(said.float(), turns.wanted, reduction="none")
        answers = (each * turns.weights).sum() / turns.weights.sum()
        image = slice(len(self.before), len(self.before) + retained.shape[1])
        scores = gaze.scores(turns.positions(), image=image)[:, turns.start :][turns.speaks]
        return answers, gaze_loss(scores, turns.looked_for(retained), turns.weights)

    def _prefix(self, pixels: Tensor, config: SkipConfig) -> tuple[Tensor, Tensor]:
        """What stands before the turns, (batch, tokens, width), and which visual tokens are retained there."""
        with torch.no_grad():
            seen, saliency = run_tower(self.core.vision_tower, normalise(pixels), layers=self.layers)
        features = self.core.multi_modal_projector(seen).float()
        split = split_visual_tokens(features, saliency, config, self.summary)
        image, table = split.sequence(), self.core.get_input_embeddings()
        before, after = (table(torch.tensor(ids)).expand(len(image), -1, -1) for ids in (self.before, self.after))
        return torch.cat([before, image, after], dim=1), split.retained_index

    def _ffn_rows(self, plan: SkipPlan, embeds: Tensor) -> Tensor | None:
        spans = plan.skipped_spans([len(self.before)])
        if not spans:
            return None
        keep = torch.ones(embeds.shape[:2], dtype=torch.bool)
        for start, stop in spans:
            keep[:, start:stop] = False
        return keep.flatten().nonzero().squeeze(1)


class _Turns:
    """The turns of a batch laid side by side behind a common prefix of `start` positions."""

    def __init__(self, batch: list[Lesson], *, start: int) -> None:
        self.start = start
        width = max(sum(len(turn.ids) for turn in lesson.turns) for lesson in batch)
        self.ids = torch.zeros(len(batch), width, dtype=torch.long)
        self.turn = torch.full((len(batch), width), -1)
        self.place = torch.zeros(len(batch), width, dtype=torch.long)
        self.speaks = torch.zeros(len(batch), width, dtype=torch.bool)
        self.is_answer = torch.zeros(len(batch), width, dtype=torch.bool)
        wanted: list[int] = []
        weights: list[float] = []
        looks: list[tuple[int, int]] = []
        for row, lesson in enumerate(batch):
            at = 0
            for number, turn in enumerate(lesson.turns):
                end = at + len(turn.ids)
                self.ids[row, at:end] = torch.tensor(turn.ids)
                self.turn[row, at:end] = number
                self.place[row, at:end] = torch.arange(len(turn.ids))
                self.speaks[row, at + turn.answer_start - 1 : end - 1] = True
                self.is_answer[row, at + turn.answer_start : end] = True
                said = turn.ids[turn.answer_start :]
                looks += [(len(wanted) + token - turn.answer_start, seen) for token, seen in turn.looks]
                wanted += said
                weights += [len(said) ** -0.5] * len(said)
                at = end
        self.wanted = torch.tensor(wanted)
        self.weights = torch.tensor(weights)
        self._looks = torch.tensor(looks, dtype=torch.long).view(-1, 2)

    def positions(self) -> Tensor:
        """(batch, start + width): every turn goes on from the prefix."""
        prefix = torch.arange(self.start).expand(len(self.ids), -1)
        return torch.cat([prefix, self.start + self.place], dim=1)

    def looked_for(self, retained: Tensor) -> Tensor:
        """(said, retained) ones and zeros: which of a picture's retained tokens show what is said next.

        Args:
            retained: (batch, retained) int64: which visual tokens.
        """
        shown = torch.zeros(len(self.wanted), VISUAL_TOKENS)
        shown[self._looks[:, 0], self._looks[:, 1]] = 1
        return shown.gather(1, retained[self.speaks.nonzero()[:, 0]])

    def mask(self, forgotten: Sequence[tuple[int, int]]) -> Tensor:
        """(batch, 1, tokens, tokens) bool: causal, and turns see the prefix and themselves only.

        Args:
            forgotten: [start, stop) of the prefix that answers do not see.
        """
        turn = torch.cat([torch.full((len(self.ids), self.start), -2), self.turn], dim=1)
        visible = (turn[:, None, :] == turn[:, :, None]) | (turn[:, None, :] == -2)
        for start, stop in forgotten:
            visible[:, self.start :, start:stop] &= ~self.is_answer[:, :, None]
        causal = torch.ones(visible.shape[-2:], dtype=torch.bool).tril()
        return (visible & causal)[:, None]


class LessonStage:
    """Batches of lessons under settings that take turns by lot, by number.

    Args:
        mix: settings with their shares of the batches.
        kinds: of pictures, in turn.
        questions: about each picture, beside its description.
        looking: how much it counts where the model looks, beside what it says.
    """

    def __init__(
        self,
        reader: Reader,
        mix: Sequence[tuple[str, float]],
        *,
        kinds: Sequence[str],
        questions: int,
        looking: float,
        batch: int,
        first_seed: int,
    ) -> None:
        self.module = reader.learnable().train()
        self._reader, self._looking, self._batch, self._first_seed = reader, looking, batch, first_seed
        self._lessons = partial(lessons, reader.tokenizer, kinds=kinds, questions=questions)
        self._settings = [SkipConfig.parse(setting) for setting, _ in mix]
        self._shares = [share for _, share in mix]
        self._told: dict[str, float] = {}

    def step(self, number: int, schedule: Schedule) -> dict[str, float]:
        """Learn from one batch; the latest loss under each setting."""
        [setting] = random.Random(f"setting {number}").choices(self._settings, self._shares)
        first = self._first_seed + number * self._batch
        batch = self._lessons(range(first, first + self._batch))
        with multiplying():
            answers, looks = self._reader.losses(batch, setting, forgetting=setting.forget_skipped)
        schedule.learn(answers + self._looking * looks)
        self._told |= {setting.describe(): answers.item(), f"{setting.describe()} looks": looks.item()}
        return self._told


def _exchange(tokenizer: PreTrainedTokenizerFast, turn: Turn, stretch: float) -> Exchange:
    asked = _ids(tokenizer, f"{turn.question} ASSISTANT:")
    answer = tokenizer(f"{turn.answer}</s>", add_special_tokens=False, return_offsets_mapping=True)
    looks = tuple(
        (len(asked) + at, row * GRID + column)
        for at, (start, stop) in enumerate(answer["offset_mapping"])
        for look in turn.looks if start < look.stop and stop > look.start
        for row, column in (patch_at(*place, stretch) for place in look.places)
    )  # fmt: skip
    return Exchange((*asked, *answer["input_ids"]), len(asked), looks)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
