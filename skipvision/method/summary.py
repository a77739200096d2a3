"""Summary tokens: one learned pooling, used for the retained and for the skipped tokens of an image."""

from __future__ import annotations

from torch import Tensor, nn


class SummaryPooling(nn.Module):
    """Pool a region's tokens into one: softmax weights over a learned score, applied to the raw embeddings.

    The score sees layer-normalised tokens; what is averaged are the tokens themselves. Weights start near zero
    (0.02), so that training starts from the plain mean. Its parameters are `norm.weight`, `norm.bias`,
    `score.weight`, `score.bias`.

    Source: the adaptive summary token of Skip-Vision (arXiv:2503.21817).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.score = nn.Linear(hidden, 1)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.zeros_(self.score.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, hidden); at least one token."""
        weights: Tensor = self.score(self.norm(tokens)).softmax(dim=1)
        return (weights * tokens).sum(dim=1)
