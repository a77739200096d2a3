"""Animations and files of several pages: the first one is shown, by rule, and no other is decoded."""

from __future__ import annotations

from typing import Any

from PIL import Image

from tests.image_catalogue.case import Case, read
from tests.image_files import animated, damaged, half_transparent, picture, saved

CLOSE = 20


def _pages(image_format: str, frames: list[Image.Image], **options: Any) -> bytes:
    return saved(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


def _three(seed: int = 0) -> list[Image.Image]:
    return [picture(seed + number) for number in range(3)]


def _first_half_white() -> Image.Image:
    image = picture()
    image.paste((255, 255, 255), (0, 0, 32, 48))
    return image


def _second_frame_damaged() -> bytes:
    data = animated("PNG")
    return damaged(data, data.index(b"fdAT") + 12, b"\xff" * 20)


CASES: dict[str, Case] = {
    "animated.gif": read(lambda: animated("GIF"), within=CLOSE),
    "thirty-frames.gif": read(lambda: animated("GIF", 30), within=CLOSE),
    "animated.webp": read(lambda: animated("WEBP"), within=CLOSE),
    "animated-lossless.webp": read(lambda: _pages("WEBP", _three(), lossless=True)),
    "animated-transparent.webp": read(
        lambda: _pages("WEBP", [half_transparent(), half_transparent(1)], lossless=True, exact=True),
        _first_half_white,
        pillow_agrees=False,
    ),
    "animated.png": read(lambda: animated("PNG")),
    "cover-before-the-animation.png": read(lambda: _pages("PNG", _three(), default_image=True)),
    "second-frame-damaged.png": read(_second_frame_damaged),
    "pages.tiff": read(lambda: _pages("TIFF", _three())),
    "pages-compressed.tiff": read(lambda: _pages("TIFF", _three(), compression="tiff_lzw")),
    "thumbnail-second.tiff": read(lambda: _pages("TIFF", [picture(), picture(1, width=8, height=6)])),
    "burst.jpg": read(lambda: _pages("MPO", _three(), quality=95), within=CLOSE),
}
