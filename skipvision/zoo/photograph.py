"""Pictures as they arrive in life: other sizes, wider than high, padded, JPEG, noise, light."""

from __future__ import annotations

import io
import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skipvision.exercises.drawing import Sheet
from skipvision.scenes import BACKGROUNDS, Scene
from skipvision.zoo.shape import IMAGE_MEAN, IMAGE_SIDE, IMAGE_STD


def photograph(drawn: Scene | Sheet, rng: random.Random, *, stretch: float = 1.0) -> np.ndarray:
    """Render a picture for training.

    Args:
        drawn: the picture.
        rng: decides everything else.
        stretch: at least 1. Above, the picture is that much wider (or higher) than it was drawn, in its background's
            colour, and padded to a square as the processor pads.

    Returns:
        (IMAGE_SIDE, IMAGE_SIDE, 3) uint8.
    """
    picture = drawn.render(rng.choice((IMAGE_SIDE, IMAGE_SIDE, 192, 256, 320)))
    if stretch > 1:
        picture = _widen(picture, stretch, _background(drawn), upright=rng.random() < 0.5)
    if rng.random() < 0.2:
        memory = io.BytesIO()
        picture.save(memory, "JPEG", quality=rng.randint(40, 95))
        picture = Image.open(memory)
    picture = picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        return np.asarray(picture)
    pixels = np.asarray(picture, np.float32) * rng.uniform(0.9, 1.05) + rng.uniform(-8, 8)
    if rng.random() < 0.4:
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
        pixels = pixels + noise * rng.uniform(1, 6)
    return pixels.clip(0, 255).astype(np.uint8)


def draw_stretch(rng: random.Random) -> float:
    """One picture in five is not square."""
    return rng.uniform(1.05, 1.4) if rng.random() < 0.2 else 1.0


def normalise(pixels: Tensor) -> Tensor:
    """(n, height, width, 3) uint8 -> (n, 3, height, width) float32 as the tower expects it."""
    mean, std = pixels.new_tensor(IMAGE_MEAN, dtype=torch.float32), pixels.new_tensor(IMAGE_STD, dtype=torch.float32)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def _background(drawn: Scene | Sheet) -> tuple[int, int, int]:
    return BACKGROUNDS[drawn.background] if isinstance(drawn, Scene) else drawn.background


def _widen(picture: Image.Image, stretch: float, background: tuple[int, int, int], *, upright: bool) -> Image.Image:
    """Extend a square picture along one axis, then pad the other as the processor does."""
    side, longer = picture.width, round(picture.width * stretch)
    bars = tuple(int(mean * 255) for mean in IMAGE_MEAN)
    square = Image.new("RGB", (longer, longer), bars)
    start = (longer - side) // 2
    strip = (side, longer) if upright else (longer, side)
    square.paste(Image.new("RGB", strip, background), (start, 0) if upright else (0, start))
    square.paste(picture, (start, start))
    return square
