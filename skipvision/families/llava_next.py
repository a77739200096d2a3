"""LLaVA-NeXT (LLaVA-1.6): LLaVA that also looks at the image in tiles, as many as suit its shape.

The decoder reads the thumbnail's tokens, then those of the tiles line by line over the whole picture, without the
padding, a learned newline after each line. Under skipping the thumbnail's tokens are retained first, then those of the
tiles; newlines are the first to be merged (docs/decisions/0008). That is the paper's LLaVA-HD setting, in which the 576
tokens of the thumbnail are retained and the 2304 of four tiles merged to 576.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from skipvision.errors import InputError
from skipvision.families.family import EncodedImages
from skipvision.families.llava import LlavaFamily, resized
from skipvision.families.tiles import TileLayout
from skipvision.method.select import global_first

_SIZE = np.dtype("<u4")
"""How each of a picture's height and width is noted."""

# Bounds the encoder's activations, as `IMAGES_PER_PASS` does for images of one tile.
_TILES_PER_PASS = 32


class LlavaNextPreparer:
    """Cuts and resizes as the checkpoint's processor does.

    The tiles stand one below the other, (3, tiles * side, side), the thumbnail first. One more line of pixels notes the
    picture's own height and width, from which follows what the padding was.
    """

    def __init__(self, image_processor: Any, config: LlavaNextConfig) -> None:
        self._image_processor, self._config = image_processor, config
        self._side = int(config.vision_config.image_size)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """See `ImagePreparer.prepare`."""
        tiles = resized(self._image_processor, rgb)  # (tiles, 3, side, side)
        column = tiles.transpose(1, 0, 2, 3).reshape(3, -1, self._side)
        note = np.zeros((3, 1, self._side), dtype=np.uint8)
        size = np.array(rgb.shape[:2], dtype=_SIZE).view(np.uint8)
        note[0, 0, : len(size)] = size
        return np.concatenate([column, note], axis=1)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """See `ImagePreparer.target_size`: the tiles together, or the thumbnail, which does not keep the aspect."""
        layout = TileLayout.of(height, width, self._config)
        scale = self._side * min(layout.rows / height, layout.columns / width)
        return max(ceil(height * scale), self._side), max(ceil(width * scale), self._side)

    def visual_tokens(self, pixels: np.ndarray) -> int:
        """See `ImagePreparer.visual_tokens`; it follows from the shape of the picture."""
        return self.layout(pixels).tokens

    def layout(self, pixels: np.ndarray) -> TileLayout:
        """How prepared pixels, (3, lines, side), were cut. Only the last line is looked at, and the shape.

        Raises:
            InputError: they are none.
        """
        _, lines, across = pixels.shape
        if lines > 1 and across == self._side:
            note = np.ascontiguousarray(pixels[:, -1]).ravel()
            height, width = note[: 2 * _SIZE.itemsize].view(_SIZE).tolist()
            if height and width and not note[2 * _SIZE.itemsize :].any():
                layout = TileLayout.of(height, width, self._config)
                if lines == layout.tiles * self._side + 1:
                    return layout
        raise InputError(
            f"pixels {lines} high and {across} wide are not prepared for this model, whose tiles are {self._side} high "
            "and wide; use the engine's prepare"
        )


class LlavaNextFamily(LlavaFamily):
    """A loaded LLaVA-NeXT checkpoint. See `Family` for what its members mean."""

    name = "llava_next"
    can_resize = False  # how a picture is cut follows from its size: a smaller one has other tiles
    architecture = LlavaNextForConditionalGeneration
    preparer_of = LlavaNextPreparer
    preparer: LlavaNextPreparer

    def look(self, pixels: Tensor) -> EncodedImages:
        """See `LlavaFamily.look`."""
        side = pixels.shape[-1]
        images = len(pixels)
        tiles = pixels[:, :, :-1].reshape(images, 3, -1, side, side).transpose(1, 2).flatten(0, 1)
        looked = [self._look(tiles[at : at + _TILES_PER_PASS]) for at in range(0, len(tiles), _TILES_PER_PASS)]
        together = [torch.cat(parts) for parts in zip(*looked, strict=True)]
        features, saliency = (each.view(images, -1, *each.shape[1:]) for each in together)
        notes = pixels[:, :, -1].cpu().numpy()  # one small copy for all
        orders = [self._order(note, pixels.shape[2]) for note in notes]
        read = [self._as_read(*each) for each in zip(orders, features, saliency, strict=True)]
        return EncodedImages([each for each, _ in read], [each for _, each in read])

    def _order(self, note: np.ndarray, lines: int) -> Tensor:
        """(tokens,) int64 of one picture, from the last line of its prepared pixels and how many there are."""
        pixels = np.broadcast_to(note[:, None], (3, lines, note.shape[1]))
        layout: TileLayout = self.preparer.layout(pixels)
        return torch.from_numpy(layout.order()).to(self.device)

    def _as_read(self, order: Tensor, features: Tensor, saliency: Tensor) -> tuple[Tensor, Tensor]:
        """One picture's (tokens, hidden) and (tokens,) of its (tiles, patches, hidden) and (tiles, patches)."""
        newline = self.model.model.image_newline.to(features.dtype)
        thumbnail, *tiles = saliency
        scores = global_first(thumbnail, torch.cat(tiles))
        never = scores.min()[None] - 1  # a newline shows nothing
        return (
            torch.cat([features.flatten(0, 1), newline[None]]).index_select(0, order),
            torch.cat([scores, never]).index_select(0, order),
        )
