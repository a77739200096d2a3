"""How the shipped models' vision tower learns to see, as CLIP's did before LLaVA took it.

Pictures are rendered, so the truth of every patch is known (see `sights`): the tower is trained to name it, and from
its CLS token which things are in the picture at all. A retained token is read away from where it stood, so that it must
carry its place itself.

Naming what is there needs one patch of each thing; Skip-Vision, which selects tokens by the CLS token's attention row,
needs them all, and first of all the middle of each. So that row is drawn there. The heads are thrown away afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from transformers import CLIPVisionModel

from skipvision.families.clip import ClsRow, watching_cls
from skipvision.zoo.photograph import draw_stretch, normalise, photograph
from skipvision.zoo.schedule import Schedule, multiplying
from skipvision.zoo.sights import CLASSES, PRESENT, PatchTruth, patch_truth
from skipvision.zoo.turns import as_sheet, picture

_AROUND = 0.15
"""How much the CLS token looks at a patch that is covered, beside one with the middle of something."""
_NOTHING = 0.15
"""Weight of patches where nothing is: most of them."""
_SPELT = 0.4
"""Weight of each character of a word."""


class SightLessons(nn.Module):
    """The tower with the heads that teach it. `forward` gives the loss of one batch and its shares of right patches."""

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.hidden_size
        self.patch_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(CLASSES.values()) + 3))
        self.presence_head = nn.Linear(width, PRESENT)

    def forward(self, pixels: Tensor, truths: Sequence[PatchTruth]) -> tuple[Tensor, dict[str, float]]:
        """Give the loss of a batch, and for every kind the share of its patches that are named right.

        Args:
            pixels: (images, side, side, 3) uint8.
            truths: one for each image.
        """
        with multiplying(), watching_cls(self.tower, self.tower.config.num_hidden_layers - 1) as row:
            seen = self.tower(normalise(pixels), output_hidden_states=True)
            told = self.patch_head(seen.hidden_states[-1][:, 1:]).flatten(0, 1).float()
            present = self.presence_head(seen.pooler_output).float()
        *named, place = told.split([*CLASSES.values(), 3], dim=-1)
        wanted = torch.from_numpy(np.stack([truth.kinds for truth in truths])).transpose(0, 1).flatten(1)
        loss, right = told.new_zeros(()), {}
        for kind, logits, true in zip(CLASSES, named, wanted, strict=True):
            loss = loss + _weight(kind) * cross_entropy(logits, true, weight=_by_class(kind, logits))
            something = true > 0
            right[kind] = (logits.argmax(-1) == true)[something].float().mean().item()
        covered = wanted[[*CLASSES].index("shape")] > 0
        places = torch.from_numpy(np.stack([truth.place for truth in truths])).flatten(0, 2)
        loss = loss + 20 * smooth_l1_loss(place[covered], places[covered], beta=0.02)
        there = torch.from_numpy(np.stack([truth.present for truth in truths]))
        loss = loss + 5 * binary_cross_entropy_with_logits(present, there)
        looked_for = covered * _AROUND + (wanted[[*CLASSES].index("middle")] > 0) * (1 - _AROUND)
        return loss + 0.5 * _gaze_loss(row, looked_for.view(len(truths), -1)), right


def _weight(kind: str) -> float:
    return _SPELT if kind.startswith("word") else 1.0


def _by_class(kind: str, logits: Tensor) -> Tensor:
    weight = torch.ones(logits.shape[-1])
    if kind not in ("background", "texture"):
        weight[0] = _NOTHING
    return weight


def _gaze_loss(row: ClsRow, wanted: Tensor) -> Tensor:
    """Cross-entropy from a look spread as `wanted`, (images, tokens), to the CLS row."""
    cls_query, keys, scaling = row.parts()
    look = ((keys.float() @ cls_query[..., None].float()).squeeze(-1) * scaling).softmax(dim=-1).mean(dim=1)[:, 1:]
    return -((wanted * look.clamp(min=1e-8).log()).sum(dim=1) / wanted.sum(dim=1).clamp(min=1e-3)).mean()


class TowerStage:
    """Batches of pictures with their truth for `SightLessons`, by number; the kinds of pictures in turn."""

    def __init__(self, tower: CLIPVisionModel, *, kinds: Sequence[str], batch: int, first_seed: int) -> None:
        self.module = SightLessons(tower).train()
        self._kinds, self._batch, self._first_seed = kinds, batch, first_seed

    def step(self, number: int, schedule: Schedule) -> dict[str, float]:
        """Learn from one batch; what is worth telling."""
        rng = random.Random(f"sights {number}")
        first = self._first_seed + number * self._batch
        drawn = [(picture(self._kinds[seed % len(self._kinds)], seed), draw_stretch(rng))
                 for seed in range(first, first + self._batch)]  # fmt: skip
        pixels = torch.from_numpy(np.stack([photograph(each, rng, stretch=by) for each, by in drawn]))
        loss, right = self.module(pixels, [patch_truth(as_sheet(each), stretch=by) for each, by in drawn])
        schedule.learn(loss)
        return {"loss": loss.item(), **right}
