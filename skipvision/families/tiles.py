"""How LLaVA-NeXT cuts a picture into tiles, and which of their tokens the decoder reads. Counts only; no pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.image_processing_utils import select_best_resolution


@dataclass(frozen=True, slots=True)
class TileLayout:
    """How one picture is cut, and which tokens of its tiles the decoder reads."""

    height: int
    width: int
    """Of the picture itself, in pixels."""
    rows: int
    columns: int
    """Of its tiles; the thumbnail comes on top of them."""
    patches: int
    """Along each side of a tile."""

    @classmethod
    def of(cls, height: int, width: int, config: Any) -> TileLayout:
        """As the checkpoint's processor cuts a picture of that size."""
        side = config.vision_config.image_size
        best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
        return cls(height, width, best_height // side, best_width // side, side // config.vision_config.patch_size)

    @property
    def tiles(self) -> int:
        """The thumbnail included."""
        return 1 + self.rows * self.columns

    @property
    def tokens(self) -> int:
        """What the decoder reads of the picture when nothing is skipped."""
        top, left = self._padding()
        lines = self.rows * self.patches - 2 * top
        return self.patches**2 + lines * (self.columns * self.patches - 2 * left + 1)

    def order(self) -> np.ndarray:
        """(tokens,) int64: which row of [thumbnail][tile][tile]...[newline] stands in each place."""
        across = self.patches**2
        thumbnail = np.arange(across)
        tiles = np.arange(across, self.tiles * across).reshape(self.rows, self.columns, self.patches, self.patches)
        picture = tiles.transpose(0, 2, 1, 3).reshape(self.rows * self.patches, self.columns * self.patches)
        top, left = self._padding()
        picture = picture[top : len(picture) - top, left : picture.shape[1] - left]
        newline = np.full((len(picture), 1), self.tiles * across)
        return np.concatenate([thumbnail, np.concatenate([picture, newline], axis=1).ravel()])

    def _padding(self) -> tuple[int, int]:
        """Lines of tokens at top and bottom, and at left and right, that show nothing of the picture."""
        lines, columns = self.rows * self.patches, self.columns * self.patches
        if self.width / self.height > columns / lines:
            return (lines - int(round(self.height * (columns / self.width), 7))) // 2, 0
        return 0, (columns - int(round(self.width * (lines / self.height), 7))) // 2
