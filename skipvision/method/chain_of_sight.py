"""Chain-of-Sight: a projector that looks at the picture through windows of several sizes.

Each scale cuts the patches into square windows, and in every window a few learned queries attend to that window's
patches alone. All scales' tokens then pass one two-layer perceptron into the width of the language model, the coarsest
scale first.

Source: Chain-of-Sight (arXiv:2407.15819), and its use in Skip-Vision (arXiv:2503.21817): at 448 pixels windows of 32, 4
and 2 patches give 16 + 256 + 1024 tokens. What both leave open stands in docs/decisions/0011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, scaled_dot_product_attention

from skipvision.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Scale:
    """Windows of one size."""

    window: int
    """Patches along each side of a window."""
    queries: int
    """In each window: a square number, whose root divides `window`."""

    def __post_init__(self) -> None:
        side = math.isqrt(max(self.queries, 0))
        if self.window < 1 or side < 1 or side * side != self.queries or self.window % side:
            raise ConfigError(
                "a scale needs windows of at least 1 patch and a square number of queries whose root divides that; "
                f"got window {self.window} with {self.queries} queries"
            )

    @property
    def side(self) -> int:
        """Queries along each side of a window."""
        return math.isqrt(self.queries)

    @property
    def cell(self) -> int:
        """Patches along each side of what one query stands for."""
        return self.window // self.side

    def tokens(self, grid: int) -> int:
        """Of a picture of `grid` by `grid` patches.

        Raises:
            ConfigError: the windows do not divide the grid.
        """
        if grid % self.window:
            raise ConfigError(f"windows of {self.window} patches do not divide a picture of {grid} by {grid} patches")
        return (grid // self.window) ** 2 * self.queries


PAPER_SCALES = (Scale(32, 16), Scale(4, 4), Scale(2, 4))
"""Of Skip-Vision's CoS setting: 16 global, 256 middle and 1024 fine tokens of 32 by 32 patches."""


class ChainOfSight(nn.Module):
    """(images, patches, width) -> (images, tokens, hidden), scale after scale, each in raster order.

    Args:
        width: of the patches' features.
        hidden: of the language model.
        grid: patches along each side of a picture.
        scales: the coarsest first.
        heads: of the attention within windows; they divide `width`.
    """

    def __init__(self, width: int, hidden: int, *, grid: int, scales: Sequence[Scale], heads: int) -> None:
        super().__init__()
        if not scales or width % heads:
            raise ConfigError(f"chain of sight needs scales, and heads that divide width {width}; got {heads} heads")
        _check_coarsest_first(scales)
        self.scales = tuple(scales)
        self.tokens = tuple(scale.tokens(grid) for scale in scales)
        self.norm = nn.LayerNorm(width)
        self.resamplers = nn.ModuleList(WindowResampler(width, grid=grid, scale=scale, heads=heads) for scale in scales)
        self.project = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        features = self.norm(features)
        seen = torch.cat([resampler(features) for resampler in self.resamplers], dim=1)
        projected: Tensor = self.project(seen)
        return projected

    def rank(self, saliency: Tensor) -> Tensor:
        """Scores that retain coarser scales first, and within a scale what the tower's CLS token looks at.

        Args:
            saliency: (images, patches), of the tower.

        Returns:
            (images, tokens) float32.
        """
        ranked = []
        for place, resampler in enumerate(self.resamplers):
            assert isinstance(resampler, WindowResampler)
            pooled = resampler.pooled(saliency[..., None].float())[..., 0]
            within = pooled / pooled.amax(dim=1, keepdim=True).clamp(min=torch.finfo(pooled.dtype).tiny)
            ranked.append(within - 2 * place)
        return torch.cat(ranked, dim=1)


class WindowResampler(nn.Module):
    """One scale: queries that attend within their window.

    Each query has a cell of its window, and its output is that cell's mean plus what it attends to. The attention's
    output starts at zero, so that training starts from average pooling at every scale, which loses nothing a gradient
    would have to find again; the gradient of the zero layer opens the rest in the first step.
    """

    def __init__(self, width: int, *, grid: int, scale: Scale, heads: int) -> None:
        super().__init__()
        self.grid, self.scale, self.heads = grid, scale, heads
        self.queries = nn.Parameter(torch.randn(scale.queries, width) * 0.02)
        self.places = nn.Parameter(torch.randn(scale.window**2, width) * 0.02)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        nn.init.zeros_(self.o_proj.weight)
        nn.init.zeros_(self.o_proj.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(images, patches, width) -> (images, tokens, width), raster order."""
        windows = self._windows(features)  # (images * windows, patches of one, width)
        q = self._by_head(self.q_proj(self.queries)[None]).expand(len(windows), -1, -1, -1)
        k, v = self._by_head(self.k_proj(windows + self.places)), self._by_head(self.v_proj(windows))
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.pooled(features) + self._raster(self.o_proj(mixed), len(features))

    def pooled(self, features: Tensor) -> Tensor:
        """The mean over each query's cell: (images, patches, n) -> (images, tokens, n), raster order."""
        picture = features.transpose(1, 2).reshape(len(features), -1, self.grid, self.grid)
        return avg_pool2d(picture, self.scale.cell).flatten(2).transpose(1, 2)

    def _windows(self, features: Tensor) -> Tensor:
        across, window = self.grid // self.scale.window, self.scale.window
        picture = features.view(len(features), across, window, across, window, -1)
        return picture.transpose(2, 3).reshape(-1, window * window, features.shape[-1])

    def _raster(self, seen: Tensor, images: int) -> Tensor:
        """Of all windows, (images * windows, queries, width), to lines over the whole picture."""
        across, side = self.grid // self.scale.window, self.scale.side
        by_window = seen.view(images, across, across, side, side, -1)
        return by_window.transpose(2, 3).reshape(images, -1, seen.shape[-1])

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def _check_coarsest_first(scales: Sequence[Scale]) -> None:
    """Under skipping the first scales are retained, so that an order that is not the order of sight goes unnoticed."""
    if any(finer.cell >= coarser.cell for coarser, finer in pairwise(scales)):
        named = ", ".join(f"{scale.window}:{scale.queries}" for scale in scales)
        raise ConfigError(
            f"scales must go from the coarsest to the finest, a query of each standing for fewer patches than before; "
            f"got {named}"
        )
