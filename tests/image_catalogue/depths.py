"""Grey, palettes and deep pixels: the numbers mean what their depth says, and none is cut off."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

from tests.image_catalogue.case import Case, read, refused
from tests.image_files import picture, png, png_chunk, saved, tiff

LEVELS_16 = (0, 257, 32_896, 40_000, 65_278, 65_535)
SEEN_16 = (0, 1, 128, 156, 254, 255)
"""The same in 8 bits."""


def greys(*levels: int) -> Image.Image:
    """One row of grey pixels."""
    return Image.fromarray(np.array([levels], dtype=np.uint8)).convert("RGB")


def _row(*values: int) -> bytes:
    """A row of a PNG, its filter byte first, of 16-bit values."""
    return b"\x00" + struct.pack(f">{len(values)}H", *values)


def _big_endian_tiff() -> bytes:
    file = BytesIO()
    Image.frombytes("I;16B", (6, 1), struct.pack(">6H", *LEVELS_16)).save(file, "TIFF")
    return file.getvalue()


def _twelve_bits(*values: int) -> bytes:
    """Pairs of values in three bytes."""
    bits = "".join(f"{value:012b}" for value in values)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _floats(*values: float) -> bytes:
    return saved(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")


def _grey_picture() -> Image.Image:
    return picture().convert("L").convert("RGB")


CASES: dict[str, Case] = {
    "grey.jpg": read(lambda: saved(picture().convert("L"), "JPEG"), _grey_picture, within=4),
    "grey.png": read(lambda: saved(picture().convert("L"), "PNG"), _grey_picture),
    "grey.bmp": read(lambda: saved(picture().convert("L"), "BMP"), _grey_picture),
    "grey.tiff": read(lambda: saved(picture().convert("L"), "TIFF"), _grey_picture),
    "two-tone.png": read(lambda: saved(picture().convert("1"), "PNG"), lambda: picture().convert("1").convert("RGB")),
    "two-tone.bmp": read(lambda: saved(picture().convert("1"), "BMP"), lambda: picture().convert("1").convert("RGB")),
    "fax.tiff": read(
        lambda: saved(picture().convert("1"), "TIFF", compression="group4"),
        lambda: picture().convert("1").convert("RGB"),
    ),
    "two-bits.png": read(lambda: png(4, 1, b"\x00\x1b", depth=2), lambda: greys(0, 85, 170, 255)),
    "four-bits.png": read(lambda: png(4, 1, b"\x00\x05\xaf", depth=4), lambda: greys(0, 85, 170, 255)),
    "palette.png": read(lambda: saved(picture().quantize(8), "PNG"), lambda: picture().quantize(8).convert("RGB")),
    "palette-of-two-bits.png": read(
        lambda: png(4, 1, b"\x00\x1b", depth=2, kind=3, extra=png_chunk(b"PLTE", bytes([9] * 3 + [8] * 3 + [7] * 6))),
        lambda: greys(9, 8, 7, 7),
    ),
    "palette.bmp": read(lambda: saved(picture().quantize(8), "BMP"), lambda: picture().quantize(8).convert("RGB")),
    "palette.tiff": read(lambda: saved(picture().quantize(8), "TIFF"), lambda: picture().quantize(8).convert("RGB")),
    "deep-grey.png": read(lambda: png(6, 1, _row(*LEVELS_16), depth=16), lambda: greys(*SEEN_16), pillow_agrees=False),
    "deep-grey.tiff": read(
        lambda: tiff(6, 1, struct.pack("<6H", *LEVELS_16), bits=16), lambda: greys(*SEEN_16), pillow_agrees=False
    ),
    "deep-grey-big-endian.tiff": read(_big_endian_tiff, lambda: greys(*SEEN_16), pillow_agrees=False),
    "deep-grey-from-white.tiff": read(
        lambda: tiff(6, 1, struct.pack("<6H", *LEVELS_16), bits=16, white=0),
        lambda: greys(*(255 - level for level in SEEN_16)),
        pillow_agrees=False,
    ),
    "twelve-bits.tiff": read(
        lambda: tiff(4, 1, _twelve_bits(0, 1_024, 2_048, 4_095), bits=12),
        lambda: greys(0, 64, 128, 255),
        pillow_agrees=False,
    ),
    "grey-from-white.tiff": read(lambda: tiff(3, 1, bytes([0, 100, 255]), white=0), lambda: greys(255, 155, 0)),
    "deep-colours.png": read(
        lambda: png(2, 1, _row(65_535, 40_000, 257, 0, 0, 65_535), depth=16, kind=2),
        lambda: Image.fromarray(np.array([[[255, 156, 1], [0, 0, 255]]], dtype=np.uint8)),
    ),
    "floats.tiff": refused("image_mode_unsupported", lambda: _floats(0.0, 0.5, 1.0)),
    "float.tiff": refused("image_mode_unsupported", lambda: _floats(0.0, 0.25, 0.5, 1.0)),
    "floats-that-are-none.tiff": refused(
        "image_mode_unsupported", lambda: _floats(float("nan"), float("inf"), -float("inf"))
    ),
    "whole-numbers.tiff": refused("image_mode_unsupported", lambda: saved(picture().convert("I"), "TIFF")),
}
