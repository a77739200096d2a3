"""Where in an image the visual tokens of each fate lie, to be drawn over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch

from skipvision.engine.vision_cache import digest_of
from skipvision.families import Family
from skipvision.method.merge import group_redundant_tokens
from skipvision.method.plan import SkipConfig, plan_image
from skipvision.method.split import split_visual_tokens

Fate = Literal["retained", "skipped", "merged", "dropped"]


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The grid of visual tokens of one image, by what became of each.

    `skipped` are those that are a skipped token by themselves; `merged` were averaged with others that resemble
    them into one skipped token, so there are more of them than the plan counts as merged. Under `resize` the grid is
    that of the smaller picture, and all of it is retained.
    """

    rows: int
    columns: int
    fates: tuple[Fate, ...]
    """Raster order, `rows` x `columns`."""

    def count(self, fate: Fate) -> int:
        return self.fates.count(fate)

    def outline(self, fate: Fate) -> str:
        """An SVG path to fill, in units of one token, that covers the tokens of `fate`: a box for each run in a row."""
        boxes = []
        for row in range(self.rows):
            start = row * self.columns
            column = 0
            for found, run in groupby(self.fates[start : start + self.columns]):
                width = len(list(run))
                if found == fate:
                    boxes.append(f"M{column} {row}h{width}v1h-{width}z")
                column += width
        return "".join(boxes)

    def border(self, fate: Fate) -> str:
        """An SVG path to stroke, in units of one token, around the regions of `fate`."""
        inside = np.pad(np.array([found == fate for found in self.fates]).reshape(self.rows, self.columns), 1)
        across = np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1])
        down = np.argwhere(inside[1:-1, 1:] != inside[1:-1, :-1])
        return "".join([*(f"M{x} {y}h1" for y, x in across), *(f"M{x} {y}v1" for y, x in down)])


def map_tokens(family: Family, pixels: np.ndarray, config: SkipConfig) -> TokenMap:
    """Choose the tokens of one image as the engine does, and note where they lie.

    Args:
        pixels: (3, height, width) uint8, prepared.

    Raises:
        ValueError: the tokens are no grid of square patches.
    """
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].to(family.device)
    encoded = family.encode(batch, side_tokens=config.resized_side)
    features, saliency = encoded.features[0][None], encoded.saliency[0][None]
    tokens = features.shape[1]
    rows, columns = _grid(pixels.shape[1], pixels.shape[2], tokens)
    plan = plan_image(config, tokens)
    split = split_visual_tokens(features, saliency, config, family.summary, [digest_of(pixels)])
    fates: list[Fate] = ["retained"] * tokens
    if plan.retained == tokens:
        return TokenMap(rows, columns, tuple(fates))
    retained = set(split.retained_index[0].tolist())
    others = [index for index in range(tokens) if index not in retained]
    if plan.dropped:
        return TokenMap(rows, columns, tuple("retained" if at in retained else "dropped" for at in range(tokens)))
    alone = [True] * len(others)
    if plan.skipped < len(others):
        grouping = group_redundant_tokens(features[:, others], num_groups=plan.skipped)
        alone = [grouping.sizes()[0, group].item() == 1 for group in grouping.group_of[0].tolist()]
    for index, is_alone in zip(others, alone, strict=True):
        fates[index] = "skipped" if is_alone else "merged"
    return TokenMap(rows, columns, tuple(fates))


def _grid(height: int, width: int, tokens: int) -> tuple[int, int]:
    patch = math.sqrt(height * width / tokens)
    rows, columns = round(height / patch), round(width / patch)
    if rows * columns != tokens:
        raise ValueError(f"{tokens} tokens are no grid over {height} x {width} pixels")
    return rows, columns
