"""Headers that promise too much, or what is not there: judged before a pixel is decoded."""

from __future__ import annotations

import struct
import zlib

from tests.image_catalogue.case import Case, read, refused, survived
from tests.image_files import (
    bmp_claiming,
    damaged,
    gif_claiming,
    jpeg_claiming,
    jpeg_with_scans,
    picture,
    png_chunk,
    png_claiming,
    png_of_size,
    saved,
    tiff,
    webp_claiming,
    with_tag,
)


def _tiff_claiming(width: int, height: int, **options: str) -> bytes:
    return with_tag(with_tag(saved(picture(), "TIFF", **options), 256, width), 257, height)


def _lossless_webp_claiming(width: int, height: int) -> bytes:
    return damaged(saved(picture(), "WEBP", lossless=True), 21, struct.pack("<I", (width - 1) | (height - 1) << 14))


def _lossy_webp_claiming(width: int, height: int) -> bytes:
    return damaged(saved(picture(), "WEBP"), 26, struct.pack("<HH", width, height))


def _run_length_bmp(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    greys = b"".join(bytes([level, level, level, 0]) for level in range(256))
    at = 14 + len(header) + len(greys)
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + header + greys + pixels


CASES: dict[str, Case] = {
    "bomb.png": refused("image_bomb", lambda: png_claiming(30_000, 30_000)),
    "bomb-square.png": refused("image_bomb", lambda: png_claiming(100_000, 100_000)),
    "bomb-line.png": refused("image_bomb", lambda: png_claiming(2**31 - 1, 1)),
    "bomb.jpg": refused("image_bomb", lambda: jpeg_claiming(65_500, 65_500)),
    "bomb.bmp": refused("image_bomb", lambda: bmp_claiming(30_000, 30_000)),
    "bomb-upside-down.bmp": refused("image_bomb", lambda: bmp_claiming(64, -(2**31))),
    "bomb-negative-width.bmp": refused("image_bomb", lambda: bmp_claiming(-64, 48)),
    "bomb.gif": refused("image_bomb", lambda: gif_claiming(65_535, 65_535)),
    "bomb.webp": refused("image_bomb", lambda: webp_claiming(16_383, 16_383)),
    "bomb-lossless.webp": refused("image_bomb", lambda: _lossless_webp_claiming(16_384, 16_384)),
    "bomb-lossy.webp": refused("image_bomb", lambda: _lossy_webp_claiming(16_383, 16_383)),
    "bomb.tiff": refused("image_bomb", lambda: _tiff_claiming(30_000, 30_000)),
    "bomb-compressed.tiff": refused("image_bomb", lambda: _tiff_claiming(2**31, 2**31, compression="tiff_lzw")),
    "too-many-pixels.png": refused("image_too_large", lambda: png_of_size(8_000, 6_000)),
    "warned-of-by-pillow.png": refused("image_too_large", lambda: png_claiming(10_000, 9_000)),
    "just-below-a-bomb.png": refused("image_too_large", lambda: png_claiming(13_000, 13_000)),
    "too-many-pixels.jpg": refused("image_too_large", lambda: jpeg_claiming(8_000, 5_001)),
    "too-many-pixels.bmp": refused("image_too_large", lambda: bmp_claiming(8_000, 5_001)),
    "too-many-pixels.gif": refused("image_too_large", lambda: gif_claiming(8_000, 5_001)),
    "too-many-pixels.webp": refused("image_too_large", lambda: webp_claiming(8_000, 5_001)),
    "too-many-pixels.tiff": refused("image_too_large", lambda: _tiff_claiming(8_000, 5_001)),
    "too-long.png": refused("image_too_large", lambda: png_of_size(16_400, 100)),
    "sliver.png": refused("image_bad_aspect", lambda: png_of_size(201, 1)),
    "line.png": refused("image_bad_aspect", lambda: png_claiming(65_500, 1)),
    "column.png": refused("image_bad_aspect", lambda: png_claiming(1, 65_500)),
    "tall-sliver.jpg": refused("image_bad_aspect", lambda: saved(picture(width=4, height=804), "JPEG")),
    "longest-aspect.png": survived(lambda: png_of_size(200, 1), size=(200, 1)),
    "one-pixel.png": read(lambda: saved(picture(width=1, height=1), "PNG"), lambda: picture(width=1, height=1)),
    "one-pixel.jpg": survived(lambda: saved(picture(width=1, height=1), "JPEG"), size=(1, 1)),
    "one-pixel.gif": survived(lambda: saved(picture(width=1, height=1), "GIF"), size=(1, 1)),
    "one-pixel.webp": survived(lambda: saved(picture(width=1, height=1), "WEBP"), size=(1, 1)),
    "one-pixel.bmp": survived(lambda: saved(picture(width=1, height=1), "BMP"), size=(1, 1)),
    "one-pixel.tiff": survived(lambda: saved(picture(width=1, height=1), "TIFF"), size=(1, 1)),
    "no-pixels.png": refused("image_corrupt", lambda: png_claiming(0, 0)),
    "no-height.jpg": refused("image_corrupt", lambda: jpeg_claiming(64, 0)),
    "no-width.jpg": refused("image_corrupt", lambda: jpeg_claiming(0, 48)),
    "no-height.tiff": refused("image_corrupt", lambda: _tiff_claiming(64, 0)),
    "no-height.bmp": refused("image_corrupt", lambda: bmp_claiming(64, 0)),
    "more-than-it-holds.png": refused("image_corrupt", lambda: png_claiming(640, 480, pixels=bytes(1000))),
    "more-than-it-holds.webp": refused("image_corrupt", lambda: webp_claiming(100, 100)),
    "more-than-it-holds.tiff": refused(
        "image_corrupt", lambda: _tiff_claiming(400, 400, compression="tiff_adobe_deflate")
    ),
    "more-than-it-holds.bmp": refused("image_truncated", lambda: bmp_claiming(640, 480)),
    "frame-smaller-than-canvas.gif": survived(lambda: gif_claiming(640, 480), size=(640, 480)),
    "run-lengths.bmp": survived(lambda: _run_length_bmp(4, 2, b"\x04\x80\x00\x00\x04\x40\x00\x01"), size=(4, 2)),
    "run-lengths-that-end.bmp": refused("image_corrupt", lambda: _run_length_bmp(2_000, 2_000, b"\x00\x01")),
    "two-hundred-scans.jpg": refused("image_too_complex", lambda: jpeg_with_scans(200)),
    "too-many-scans.jpg": refused("image_too_complex", lambda: jpeg_with_scans(101)),
    "most-scans.jpg": read(lambda: jpeg_with_scans(100), within=40),
    "too-many-chunks.png": refused(
        "image_too_complex", lambda: png_claiming(8, 8, extra=png_chunk(b"teXt", b"") * 300_001)
    ),
    "too-many-strips.tiff": refused(
        "image_too_complex", lambda: damaged(tiff(8, 8, bytes(64)), 8 + 64 + 2 + 12 * 5 + 4, struct.pack("<I", 300_001))
    ),
    "text-bomb.png": refused(
        "image_corrupt",
        lambda: png_claiming(8, 8, extra=png_chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(2**22)))),
    ),
    "profile-bomb.png": refused(
        "image_corrupt",
        lambda: png_claiming(8, 8, extra=png_chunk(b"iCCP", b"k\x00\x00" + zlib.compress(bytes(2**22)))),
    ),
}
