"""From pixels to the visual tokens that the decoder reads, for all images of a step together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from skipvision.families.family import Family
from skipvision.method.plan import SkipConfig
from skipvision.method.split import split_visual_tokens

# Bounds the encoder's activations: 32 images of 576 patches in a tower of width 1024 take about 2 GB in float32.
IMAGES_PER_PASS = 32


def read_images(family: Family, images: Sequence[np.ndarray], skips: Sequence[SkipConfig]) -> list[Tensor]:
    """Encode images and split their tokens as each one's config wishes.

    Args:
        images: (3, height, width) uint8 each, prepared; sizes may differ.
        skips: one for each image.

    Returns:
        For each image its tokens in the order the decoder reads them: (lm_tokens, hidden).
    """
    features, saliency = _encode(family, images)
    tokens: dict[int, Tensor] = {}
    for where in _alike([(skip, len(each)) for skip, each in zip(skips, features, strict=True)]):
        together = torch.stack([features[i] for i in where]), torch.stack([saliency[i] for i in where])
        sequences = split_visual_tokens(*together, skips[where[0]], family.summary).sequence()
        tokens.update(zip(where, sequences, strict=True))
    return [tokens[i] for i in range(len(images))]


def _encode(family: Family, images: Sequence[np.ndarray]) -> tuple[list[Tensor], list[Tensor]]:
    """Features and saliency of each image; one pass for up to `IMAGES_PER_PASS` images of one size."""
    features: dict[int, Tensor] = {}
    saliency: dict[int, Tensor] = {}
    for where in _alike([image.shape for image in images]):
        for start in range(0, len(where), IMAGES_PER_PASS):
            some = where[start : start + IMAGES_PER_PASS]
            encoded = family.encode(torch.from_numpy(np.stack([images[i] for i in some])).to(family.device))
            features.update(zip(some, encoded.features, strict=True))
            saliency.update(zip(some, encoded.saliency, strict=True))
    places = range(len(images))
    return [features[i] for i in places], [saliency[i] for i in places]


def _alike(kinds: Sequence[Hashable]) -> list[list[int]]:
    """Places of equal kinds together, in order of first appearance."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, kind in enumerate(kinds):
        groups[kind].append(place)
    return list(groups.values())
