"""Files of which the end is missing: never padded, always told apart from damage."""

from __future__ import annotations

from typing import Any

from tests.image_catalogue.case import read, refused
from tests.image_files import animated, half_transparent, picture, png_chunk, saved, transparent_palette_png


def _cut(image_format: str, keep: float, **options: Any) -> bytes:
    data = saved(picture(), image_format, **options)
    return data[: int(len(data) * keep)]


def _cut_bytes(data: bytes, keep: float) -> bytes:
    return data[: int(len(data) * keep)]


CASES = {
    "empty.png": refused("image_empty", lambda: b""),
    "one-byte.jpg": refused("image_unidentified", lambda: b"\xff"),
    "cut-half.jpg": refused("image_truncated", lambda: _cut("JPEG", 0.5)),
    "cut-by-two-bytes.jpg": refused("image_truncated", lambda: saved(picture(), "JPEG")[:-2]),
    "only-the-first-marker.jpg": refused("image_truncated", lambda: b"\xff\xd8"),
    "cut-in-tables.jpg": refused("image_truncated", lambda: saved(picture(), "JPEG")[:100]),
    "cut-progressive.jpg": refused("image_truncated", lambda: _cut("JPEG", 0.8, progressive=True)),
    "cut-print.jpg": refused("image_truncated", lambda: _cut_bytes(saved(picture().convert("CMYK"), "JPEG"), 0.7)),
    "cut-half.png": refused("image_truncated", lambda: _cut("PNG", 0.5)),
    "cut-in-header.png": refused("image_truncated", lambda: saved(picture(), "PNG")[:20]),
    "only-the-signature.png": refused("image_truncated", lambda: saved(picture(), "PNG")[:8]),
    "cut-palette.png": refused("image_truncated", lambda: _cut_bytes(transparent_palette_png(), 0.8)),
    "no-end-chunk.png": read(lambda: saved(picture(), "PNG")[:-12]),
    "no-pixels-but-an-end.png": refused(
        "image_corrupt", lambda: saved(picture(), "PNG")[:33] + png_chunk(b"IEND", b"")
    ),
    "cut-half.webp": refused("image_truncated", lambda: _cut("WEBP", 0.5)),
    "cut-lossless.webp": refused("image_truncated", lambda: _cut("WEBP", 0.7, lossless=True)),
    "cut-transparent.webp": refused("image_truncated", lambda: _cut_bytes(saved(half_transparent(), "WEBP"), 0.6)),
    "cut-animation.webp": refused("image_truncated", lambda: _cut_bytes(animated("WEBP"), 0.3)),
    "cut-after-header.webp": refused("image_truncated", lambda: saved(picture(), "WEBP")[:12]),
    "cut-half.gif": refused("image_truncated", lambda: _cut("GIF", 0.5)),
    "only-the-signature.gif": refused("image_truncated", lambda: b"GIF89a"),
    "no-frame.gif": refused("image_truncated", lambda: saved(picture().convert("P"), "GIF")[: 13 + 3 * 256] + b";"),
    "cut-after-first-frame.gif": read(lambda: animated("GIF")[:-60], within=20),
    "cut-half.bmp": refused("image_truncated", lambda: _cut("BMP", 0.5)),
    "cut-by-one-byte.bmp": refused("image_truncated", lambda: saved(picture(), "BMP")[:-1]),
    "cut-in-header.bmp": refused("image_truncated", lambda: saved(picture(), "BMP")[:30]),
    "cut-half.tiff": refused("image_truncated", lambda: _cut("TIFF", 0.5)),
    "cut-compressed.tiff": refused("image_truncated", lambda: _cut("TIFF", 0.9, compression="tiff_lzw")),
    "cut-big.tiff": refused("image_truncated", lambda: _cut("TIFF", 0.5, big_tiff=True)),
    "only-the-signature.tiff": refused("image_truncated", lambda: b"II*\x00"),
}
