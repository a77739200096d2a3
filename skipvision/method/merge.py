"""Token merge: join redundant tokens to the distinctive tokens they resemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which output token each input token becomes part of."""

    group_of: Tensor
    """(batch, tokens) int64; values run from 0 to `num_groups - 1`, every one of them used."""

    num_groups: int

    def sizes(self) -> Tensor:
        """Members per group: (batch, num_groups) float32, at least 1."""
        ones = torch.ones_like(self.group_of, dtype=torch.float32)
        return ones.new_zeros(len(ones), self.num_groups).scatter_add_(1, self.group_of, ones)

    def mean(self, x: Tensor) -> Tensor:
        """Average the members of each group: (batch, tokens, dim) -> (batch, num_groups, dim).

        Sums in float32, since bfloat16 loses members of large groups, and returns `x.dtype`.
        """
        index = self.group_of[..., None].expand_as(x)
        total = x.new_zeros(len(x), self.num_groups, x.shape[-1], dtype=torch.float32)
        return (total.scatter_add(1, index, x.float()) / self.sizes()[..., None]).to(x.dtype)


@torch.no_grad()
def group_redundant_tokens(features: Tensor, *, num_groups: int) -> Grouping:
    """Join each redundant token to the distinctive token it resembles most.

    A token is redundant when it resembles many others: its score is the sum of its cosine similarities to all of
    them. The `num_groups` lowest scores found the groups. The decision carries no gradient; `Grouping.mean` does.

    Args:
        features: (batch, tokens, dim), any float dtype. What similarity is measured on.
        num_groups: tokens to end up with per image, 1 to `tokens`.

    Returns:
        Groups in descending redundancy of their founders: the last is the most distinctive token.

    Raises:
        ValueError: `num_groups` is out of range.

    Cost: one (tokens, tokens) float32 matrix per image, 21 MB for 2,304 tokens.
    Source: the merge step of Skip-Vision (arXiv:2503.21817).
    """
    batch, tokens, _ = features.shape
    if not 1 <= num_groups <= tokens:
        raise ValueError(f"num_groups must be 1 to {tokens}, the number of tokens; got {num_groups}")

    unit = normalize(features.float(), dim=-1)
    likeness = unit @ unit.mT  # (batch, tokens, tokens)
    # The token's likeness to itself is left out, as published: it is 1 for all but a zero vector.
    redundancy = likeness.sum(dim=-1) - likeness.diagonal(dim1=-2, dim2=-1)
    founders = redundancy.argsort(dim=-1, descending=True, stable=True)[:, -num_groups:]  # least redundant last
    to_founder = likeness.gather(2, founders[:, None].expand(-1, tokens, -1))  # (batch, tokens, num_groups)

    own_group = torch.arange(num_groups, device=features.device).expand(batch, -1)
    return Grouping(to_founder.argmax(dim=-1).scatter(1, founders, own_group), num_groups)
