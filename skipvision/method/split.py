"""Split the visual tokens of images, once, before the language model: retained, skipped, summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipvision.errors import ConfigError
from skipvision.method.merge import group_redundant_tokens
from skipvision.method.plan import SkipConfig, plan_image
from skipvision.method.reduce import reduction_scores
from skipvision.method.select import most_salient
from skipvision.method.summary import SummaryPooling


@dataclass(frozen=True, slots=True)
class VisualSplit:
    """The visual tokens of a batch of images of one size, by what becomes of them."""

    retained: Tensor
    """(batch, retained, dim), raster order."""

    skipped: Tensor
    """(batch, skipped, dim), merged if the config says so; no tokens when nothing is skipped."""

    summaries: tuple[Tensor, Tensor] | None
    """Of the retained and of the skipped tokens, each (batch, dim)."""

    retained_index: Tensor
    """(batch, retained) int64: which visual tokens were retained, ascending."""

    def sequence(self) -> Tensor:
        """The tokens in the order the decoder reads them: (batch, lm_tokens, dim)."""
        if self.summaries is None:
            return torch.cat([self.retained, self.skipped], dim=1)
        of_retained, of_skipped = (summary[:, None] for summary in self.summaries)
        return torch.cat([self.retained, of_retained, self.skipped, of_skipped], dim=1)


def split_visual_tokens(
    features: Tensor,
    scores: Tensor,
    config: SkipConfig,
    summary: SummaryPooling | None,
    digests: Sequence[bytes] = (),
    *,
    pooled_from: int = 0,
) -> VisualSplit:
    """Split the visual tokens of images as `config` wishes.

    Args:
        features: (batch, tokens, dim), after the projector; under `resize`, of the smaller picture.
        scores: (batch, tokens); the highest are retained.
        config: the wish.
        summary: the checkpoint's pooling; needed when `config.summarise`.
        digests: of each image's content; needed when `config.reducer` is `random`.
        pooled_from: how many of the first retained tokens no summary is pooled over.

    Raises:
        ConfigError: an image has too few tokens, `summary` is missing, or nothing is left to pool.
        ValueError: `digests` are missing.

    Gradients flow through values, never through the choice of tokens.
    """
    batch, tokens, dim = features.shape
    plan = plan_image(config, tokens)
    if plan.skipped == 0 and plan.retained == tokens:
        everything = torch.arange(tokens, device=features.device).expand(batch, -1)
        return VisualSplit(features, features[:, :0], None, everything)

    if config.reducer == "random" and len(digests) != batch:
        raise ValueError(f"random reduction needs a digest of each of {batch} images; got {len(digests)}")
    if config.reducer is not None:
        scores = reduction_scores(config.reducer, plan.retained, scores, digests)
    index = most_salient(scores, plan.retained)
    if config.reducer is not None:
        kept = features.gather(1, index[..., None].expand(-1, -1, dim))
        return VisualSplit(kept, features[:, :0], None, index)
    left = torch.ones_like(scores, dtype=torch.bool).scatter(1, index, False)
    # Each row has the same number of ones, so a stable sort finds them without a host-side count.
    others = left.int().argsort(dim=1, descending=True, stable=True)[:, : tokens - plan.retained]
    retained = features.gather(1, index[..., None].expand(-1, -1, dim))
    skipped = features.gather(1, others[..., None].expand(-1, -1, dim))
    if plan.skipped < skipped.shape[1]:
        skipped = group_redundant_tokens(skipped, num_groups=plan.skipped).mean(skipped)
    if not plan.summaries:
        return VisualSplit(retained, skipped, None, index)
    if summary is None:
        raise ConfigError(
            f"the setting {config.describe()} needs summary tokens and this checkpoint has no summary module; "
            f"use {config.retain}/{plan.skipped}:plain, or a checkpoint fine-tuned with Skip-Vision"
        )
    check_pooled(config, pooled_from)
    return VisualSplit(retained, skipped, (summary(retained[:, pooled_from:]), summary(skipped)), index)


def check_pooled(config: SkipConfig, pooled_from: int) -> None:
    """Refuse a setting that retains no token over which a summary is pooled.

    Raises:
        ConfigError: naming how many tokens no summary sees.
    """
    if config.summarise and config.retain is not None and config.retain <= pooled_from:
        raise ConfigError(
            f"the setting {config.describe()} retains no token to summarise: the first {pooled_from} of an image show "
            f"the whole picture and are not pooled; retain more than {pooled_from}"
        )
