"""Transparency of every kind: laid on white, so that no model sees what no person sees."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.image_catalogue.case import Case, read
from tests.image_catalogue.depths import greys
from tests.image_files import half_transparent, picture, png, png_chunk, saved


def _half_white() -> Image.Image:
    image = picture()
    image.paste((255, 255, 255), (0, 0, 32, 48))
    return image


def _half_white_grey() -> Image.Image:
    return _half_white().convert("L").convert("RGB")


def _without_its_first_quarter() -> Image.Image:
    image = picture()
    image.paste((255, 255, 255), (0, 0, 32, 24))
    return image


def _transparent_colour(image_format: str = "PNG") -> bytes:
    return saved(picture(), image_format, transparency=picture().getpixel((0, 0)))


def _palette_with_levels() -> bytes:
    """Black three times: hidden, half hidden, shown."""
    extra = png_chunk(b"PLTE", bytes(9)) + png_chunk(b"tRNS", bytes([0, 128, 255]))
    return png(3, 1, b"\x00\x00\x01\x02", kind=3, extra=extra)


def _hidden_grey(depth: int, row: bytes, hidden: int, width: int = 4) -> bytes:
    return png(width, 1, b"\x00" + row, depth=depth, extra=png_chunk(b"tRNS", struct.pack(">H", hidden)))


def _read(make, shows) -> Case:
    return read(make, shows, pillow_agrees=False)


CASES: dict[str, Case] = {
    "transparent.png": _read(lambda: saved(half_transparent(), "PNG"), _half_white),
    "transparent.webp": _read(lambda: saved(half_transparent(), "WEBP", lossless=True, exact=True), _half_white),
    "transparent.tiff": _read(lambda: saved(half_transparent(), "TIFF"), _half_white),
    "transparent-grey.png": _read(lambda: saved(half_transparent().convert("LA"), "PNG"), _half_white_grey),
    "half-transparent.png": _read(
        lambda: saved(Image.new("RGBA", (4, 4), (200, 0, 100, 51)), "PNG"),
        lambda: Image.new("RGB", (4, 4), (244, 204, 224)),
    ),
    "all-hidden.png": _read(
        lambda: saved(Image.new("RGBA", (8, 8), (1, 2, 3, 0)), "PNG"), lambda: Image.new("RGB", (8, 8), "white")
    ),
    "opaque.png": read(lambda: saved(picture().convert("RGBA"), "PNG")),
    "hidden-colour.png": _read(_transparent_colour, _without_its_first_quarter),
    "hidden-palette-colour.png": _read(
        lambda: saved(picture().quantize(8), "PNG", transparency=picture().quantize(8).getpixel((0, 0))),
        _without_its_first_quarter,
    ),
    "hidden-palette-colour.gif": _read(
        lambda: saved(picture().quantize(8), "GIF", transparency=picture().quantize(8).getpixel((0, 0))),
        _without_its_first_quarter,
    ),
    "palette-with-levels.png": _read(_palette_with_levels, lambda: greys(255, 127, 0)),
    "hidden-two-tone.png": _read(lambda: _hidden_grey(1, b"\x50", 0), lambda: greys(255, 255, 255, 255)),
    "hidden-of-two-bits.png": _read(lambda: _hidden_grey(2, b"\x1b", 1), lambda: greys(0, 255, 170, 255)),
    "hidden-of-four-bits.png": _read(lambda: _hidden_grey(4, b"\x05\xaf", 5), lambda: greys(0, 255, 170, 255)),
    "hidden-grey.png": _read(lambda: _hidden_grey(8, bytes([7, 8, 9, 10]), 8), lambda: greys(7, 255, 9, 10)),
    "hidden-deep-grey.png": _read(
        lambda: _hidden_grey(16, struct.pack(">2H", 1_000, 2_000), 1_000, width=2), lambda: greys(255, 8)
    ),
    "hidden-deep-colour.png": _read(
        lambda: png(
            2,
            1,
            b"\x00" + struct.pack(">6H", *[40_000] * 3, *[20_000] * 3),
            depth=16,
            kind=2,
            extra=png_chunk(b"tRNS", struct.pack(">3H", *[40_000] * 3)),
        ),
        lambda: greys(255, 78),
    ),
    "deep-with-alpha.png": _read(
        lambda: png(2, 1, b"\x00" + struct.pack(">8H", 0, 0, 0, 0, 65_535, 0, 0, 65_535), depth=16, kind=6),
        lambda: Image.fromarray(np.array([[[255, 255, 255], [255, 0, 0]]], dtype=np.uint8)),
    ),
    "deep-grey-with-alpha.png": _read(
        lambda: png(2, 1, b"\x00" + struct.pack(">4H", 0, 0, 40_000, 65_535), depth=16, kind=4),
        lambda: greys(255, 156),
    ),
}
