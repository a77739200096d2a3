"""From pixels to the visual tokens that the decoder reads, for all images of a step together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.transfer import to_device
from skipvision.engine.vision_cache import VisionCache, VisionKey
from skipvision.families.family import Family
from skipvision.method.plan import SkipConfig
from skipvision.method.split import split_visual_tokens

# Bounds the encoder's activations: 32 images of 576 patches in a tower of width 1024 take about 2 GB in float32.
IMAGES_PER_PASS = 32

Timing = Callable[..., AbstractContextManager[None]]
"""As `StageClock.timing`."""


View = tuple[bytes, int | None]
"""A digest of the pixels, and the tokens along each side that the tower makes of them, where it sees them smaller."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as one request wants it read."""

    pixels: np.ndarray
    """(3, height, width) uint8, prepared."""
    digest: bytes
    """Of the pixels."""
    skip: SkipConfig

    @property
    def key(self) -> VisionKey:
        return self.digest, self.skip

    @property
    def view(self) -> View:
        return self.digest, self.skip.resized_side


class ImageReader:
    """The vision side of a model, which looks at no image twice while it remembers it."""

    def __init__(self, family: Family, cache: VisionCache, timing: Timing) -> None:
        self._family, self._cache, self._timing = family, cache, timing
        self.hits = 0
        """Pictures whose tokens were at hand: kept from before, or made for another picture of the same step."""
        self.misses = 0

    def read(self, pictures: Sequence[Picture]) -> list[tuple[Tensor, bool]]:
        """The tokens of each picture as the decoder reads them, (lm_tokens, hidden), and whether it was encoded now.

        Sizes and settings may differ.
        """
        tokens: dict[VisionKey, Tensor] = {}
        missing: dict[VisionKey, int] = {}  # and for which picture it is made
        for place, picture in enumerate(pictures):
            found = self._cache.get(picture.key)
            if found is not None:
                tokens[picture.key] = found
            else:
                missing.setdefault(picture.key, place)
        made = self._make([pictures[place] for place in missing.values()])
        for key, each in made.items():
            self._cache.put(key, each)
        self.misses += len(made)
        self.hits += len(pictures) - len(made)
        tokens |= made
        return [(tokens[picture.key], missing.get(picture.key) == place) for place, picture in enumerate(pictures)]

    def _make(self, pictures: Sequence[Picture]) -> dict[VisionKey, Tensor]:
        """Encode each image once at each size, and reduce its tokens as each picture of it wishes."""
        made: dict[VisionKey, Tensor] = {}
        if not pictures:
            return made
        with self._timing(encode=1):
            features, saliency = self._encode({picture.view: picture.pixels for picture in pictures})
        with self._timing(merge=1):
            for alike in _alike(pictures, lambda picture: (picture.skip, len(features[picture.view]))):
                x, scores = (torch.stack([of[picture.view] for picture in alike]) for of in (features, saliency))
                digests = [picture.digest for picture in alike]
                split = split_visual_tokens(
                    x, scores, alike[0].skip, self._family.summary, digests, pooled_from=self._family.pooled_from
                )
                made.update(zip([picture.key for picture in alike], split.sequence(), strict=True))
        return made

    def _encode(self, images: Mapping[View, np.ndarray]) -> tuple[dict[View, Tensor], dict[View, Tensor]]:
        """Features and saliency of each view; one pass for up to `IMAGES_PER_PASS` images that are seen at one size."""
        features: dict[View, Tensor] = {}
        saliency: dict[View, Tensor] = {}
        for alike in _alike(images, lambda view: (images[view].shape, view[1])):
            for start in range(0, len(alike), IMAGES_PER_PASS):
                some = alike[start : start + IMAGES_PER_PASS]
                pixels = np.stack([images[view] for view in some])
                encoded = self._family.encode(to_device(pixels, self._family.device), side_tokens=some[0][1])
                features.update(zip(some, encoded.features, strict=True))
                saliency.update(zip(some, encoded.saliency, strict=True))
        return features, saliency


Thing = TypeVar("Thing")


def _alike(things: Iterable[Thing], kind: Callable[[Thing], Hashable]) -> list[list[Thing]]:
    """Things of equal kinds together, in order of first appearance."""
    groups: dict[Hashable, list[Thing]] = defaultdict(list)
    for thing in things:
        groups[kind(thing)].append(thing)
    return list(groups.values())
