"""Every ordinary way to store a picture."""

from __future__ import annotations

import struct

from PIL import Image

from tests.image_catalogue.case import Case, read
from tests.image_files import damaged, picture, saved

CLOSE = 12
"""What lossy formats change in the middle of a plain area, at the most."""


def _upside_down() -> Image.Image:
    return picture().transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def _tiff(compression: str, within: int = 0) -> Case:
    return read(lambda: saved(picture(), "TIFF", compression=compression), within=within)


CASES: dict[str, Case] = {
    "plain.jpg": read(lambda: saved(picture(), "JPEG"), within=CLOSE),
    "progressive.jpg": read(lambda: saved(picture(), "JPEG", progressive=True), within=CLOSE),
    "whole-chroma.jpg": read(lambda: saved(picture(), "JPEG", subsampling=0), within=CLOSE),
    "quarter-chroma.jpg": read(lambda: saved(picture(), "JPEG", subsampling=2), within=CLOSE),
    "rgb-inside.jpg": read(lambda: saved(picture(), "JPEG", keep_rgb=True), within=CLOSE),
    "restart-markers.jpg": read(lambda: saved(picture(), "JPEG", restart_marker_blocks=2), within=CLOSE),
    "optimised.jpg": read(lambda: saved(picture(), "JPEG", optimize=True), within=CLOSE),
    "odd-size.jpg": read(
        lambda: saved(picture(width=61, height=47), "JPEG"), lambda: picture(width=61, height=47), within=CLOSE
    ),
    "plain.png": read(lambda: saved(picture(), "PNG")),
    "strongly-compressed.png": read(lambda: saved(picture(), "PNG", compress_level=9)),
    "plain.webp": read(lambda: saved(picture(), "WEBP"), within=CLOSE),
    "lossless.webp": read(lambda: saved(picture(), "WEBP", lossless=True)),
    "plain.gif": read(lambda: saved(picture(), "GIF"), within=CLOSE),
    "interlaced.gif": read(lambda: saved(picture(), "GIF", interlace=True), within=CLOSE),
    "plain.bmp": read(lambda: saved(picture(), "BMP")),
    "top-down.bmp": read(lambda: damaged(saved(picture(), "BMP"), 22, struct.pack("<i", -48)), _upside_down),
    "plain.tiff": read(lambda: saved(picture(), "TIFF")),
    "big.tiff": read(lambda: saved(picture(), "TIFF", big_tiff=True)),
    "packbits.tiff": _tiff("packbits"),
    "lzw.tiff": _tiff("tiff_lzw"),
    "deflate.tiff": _tiff("tiff_adobe_deflate"),
    "jpeg-inside.tiff": _tiff("jpeg", within=CLOSE),
    "strips.tiff": read(lambda: saved(picture(), "TIFF", tiffinfo={278: 8}, compression="tiff_lzw")),
}
