"""Pictures drawn to cost a decoder what photos cost it, and pages of letters, which are hardest to make smaller."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw


def photo(width: int, height: int) -> Image.Image:
    """Noise that is as strong as its waves are long, which is how photos are made up; the same every time."""
    rng = np.random.default_rng(0)
    total = np.full((height, width, 3), 128, dtype=np.float32)
    for octave in range(2, 9):
        waves = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8))
        grown = np.asarray(waves.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        total += (grown - 128) * np.float32(2 * 0.6**octave)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def page(width: int, height: int) -> Image.Image:
    """White letters and black squares with hard edges, on a photo."""
    image, rng = photo(width, height), np.random.default_rng(1)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        draw.text((x, y), "skip what is not needed", fill=(255, 255, 255), font_size=height // 12)
        draw.rectangle([x, y, x + width // 30, y + height // 30], fill=(0, 0, 0))
    return image
