"""Training-free reduction: which visual tokens stay when the others are dropped before the language model.

Three rules rank the tokens of an image; the highest ranks stay, in raster order. The fourth, `resize`, ranks nothing:
the picture enters the vision tower smaller, so that the tower makes fewer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skipvision.method.plan import Reducer


def reduction_scores(reducer: Reducer, kept: int, saliency: Tensor, digests: Sequence[bytes]) -> Tensor:
    """Rank visual tokens by a rule.

    Args:
        reducer: any but `resize`.
        kept: tokens per image that will stay.
        saliency: (batch, tokens) float32.
        digests: of each image's content.

    Returns:
        (batch, tokens) float32 on the device of `saliency`; the tokens with the highest stay.

    Raises:
        ValueError: `resize`, which ranks no tokens.
    """
    batch, tokens = saliency.shape
    match reducer:
        case "saliency":
            return saliency
        case "uniform":
            scores = torch.zeros(tokens)
            scores[evenly_spread(tokens, kept)] = 1.0
            return scores.to(saliency.device).expand(batch, -1)
        case "random":
            return torch.stack([_random_scores(digest, tokens) for digest in digests]).to(saliency.device)
        case "resize":
            raise ValueError("resize ranks no tokens: the tower makes fewer")


def evenly_spread(tokens: int, kept: int) -> Tensor:
    """Places spread evenly over an image.

    Over a square grid they are lines of places with equal distances, each the middle of an equal share; where
    `kept` is no product, some lines have one place more. Tokens that are no square grid are spread over as they are
    read.

    Returns:
        (kept,) int64, ascending.
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        return _middles(tokens, kept)
    lines = max(1, round(math.sqrt(kept)))
    ends = [line * kept // lines for line in range(lines + 1)]
    rows = _middles(side, lines).tolist()
    return torch.cat([row * side + _middles(side, ends[i + 1] - ends[i]) for i, row in enumerate(rows)])


def _middles(length: int, parts: int) -> Tensor:
    """The middle place of each of `parts` equal shares of `length` places."""
    return (2 * torch.arange(parts) + 1) * length // (2 * parts)


def _random_scores(digest: bytes, tokens: int) -> Tensor:
    """(tokens,) float32; of numpy and not of torch, whose draws differ between devices."""
    drawn = np.random.default_rng(int.from_bytes(digest, "big")).random(tokens, dtype=np.float32)
    return torch.from_numpy(drawn)
