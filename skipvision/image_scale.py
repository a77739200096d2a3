"""How much smaller a JPEG is decoded when the model needs less: by a half, a quarter or an eighth, or not at all.

libjpeg leaves out work for pixels that would be averaged away, and most of the memory. What comes out is close to the
whole picture made smaller, not equal to it: docs/decisions/0017 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL.JpegImagePlugin import JpegImageFile

Target = Callable[[int, int], tuple[int, int]]
"""(height, width) of an upright picture -> the (height, width) that it is going to be resized to."""

RESERVE = 2
"""Both sides stay at least so many times those of the target, so that the resize that follows still averages."""


def reduce(image: JpegImageFile, target: Target, *, is_on_its_side: bool) -> None:
    """Tell the decoder of `image`, which has read the header only, to make it smaller.

    By no scale that does not divide both sides: the picture keeps its exact aspect, and with it the crop, the tiles and
    the tokens it would have had.

    Args:
        is_on_its_side: the picture will be turned by a quarter when it is decoded.
    """
    width, height = reversed(image.size) if is_on_its_side else image.size
    target_height, target_width = target(height, width)
    for scale in (8, 4, 2):
        is_enough = height >= scale * RESERVE * target_height and width >= scale * RESERVE * target_width
        if is_enough and height % scale == 0 and width % scale == 0:
            image.draft(None, (image.width // scale, image.height // scale))
            return
