"""Which visual tokens are retained: those that the encoder's CLS token looks at."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def cls_attention(cls_query: Tensor, keys: Tensor, *, scaling: float) -> Tensor:
    """Compute the one attention row that selection needs, beside whatever kernel the encoder runs.

    Args:
        cls_query: (batch, heads, head_dim), the CLS token's query in one encoder layer.
        keys: (batch, heads, 1 + tokens, head_dim), that layer's keys, the CLS token's first.
        scaling: what the layer multiplies its scores by.

    Returns:
        (batch, tokens) float32: the CLS row after softmax over all `1 + tokens` keys, summed over heads, without
        the CLS token's own column.

    Source: Skip-Vision (arXiv:2503.21817), LLaVA setting.
    """
    scores = (keys.float() @ cls_query.float()[..., None]).squeeze(-1) * scaling  # (batch, heads, 1 + tokens)
    return scores.softmax(dim=-1).sum(dim=1)[:, 1:]


@torch.no_grad()
def global_first(thumbnail: Tensor, tiles: Tensor) -> Tensor:
    """Join the scores of one image's thumbnail and tiles so that every token of the thumbnail ranks before the tiles'.

    Args:
        thumbnail: (tokens,), not negative.
        tiles: (tokens,), those of all tiles together.

    Returns:
        (thumbnail + tiles,) in the same order within either.

    Source: Skip-Vision (arXiv:2503.21817), LLaVA-HD setting, which retains the global tokens.
    """
    return torch.cat([thumbnail, tiles - (tiles.amax() + 1)])


@torch.no_grad()
def most_salient(scores: Tensor, count: int) -> Tensor:
    """Index of the `count` highest scores per image, in raster order.

    Args:
        scores: (batch, tokens). Equal scores are taken in raster order, so that a choice never depends on company.

    Returns:
        (batch, count) int64, ascending.

    Raises:
        ValueError: `count` is out of range.
    """
    tokens = scores.shape[-1]
    if not 0 <= count <= tokens:
        raise ValueError(f"count must be 0 to {tokens}, the number of tokens; got {count}")
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[:, :count].sort(dim=-1).values
