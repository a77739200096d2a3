"""Image files of every ordinary and hostile kind, made on the spot: none is kept in the repository.

`write_good` and `write_broken` fill folders for tests of jobs and services; the single makers serve the tests of
decoding. Everything is small and made in milliseconds; what claims to be huge only claims it.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG = 0x0112


def picture(seed: int = 0, *, width: int = 64, height: int = 48) -> Image.Image:
    """An RGB picture that differs in its four quarters, so that each turn of it is a different picture."""
    quarters = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(quarters).resize((width, height), Image.Resampling.NEAREST)


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """`image` as the bytes of a file."""
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, *, pixels: bytes = b"", extra: bytes = b"") -> bytes:
    """A 1-bit PNG whose header claims a size; `pixels` is all that it holds, before compression."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return PNG_SIGNATURE + header + extra + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> bytes:
    """A whole, white, 1-bit PNG: millions of pixels in a few kilobytes."""
    return png_claiming(width, height, pixels=(b"\x00" + b"\xff" * ((width + 7) // 8)) * height)


def bmp_claiming(width: int, height: int) -> bytes:
    body = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + len(body)) + body


def gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved(picture().convert("P"), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_claiming(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunks = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + saved(picture(), "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def jpeg_with_scans(num_scans: int) -> bytes:
    """A progressive JPEG whose last pass over the pixels is repeated until there are `num_scans`."""
    data = saved(picture(), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last_scan * (num_scans - data.count(b"\xff\xda")) + data[-2:]


def oriented(orientation: int, image_format: str = "JPEG", seed: int = 0) -> bytes:
    """`picture(seed)` with an EXIF orientation; its stored pixels are those of the picture, not turned."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    return saved(
        picture(seed), image_format, exif=exif, **(options | ({"lossless": True} if image_format == "WEBP" else {}))
    )


def half_transparent(seed: int = 0) -> Image.Image:
    """RGBA: the left half fully transparent, the right half opaque, colours under both."""
    image = picture(seed).convert("RGBA")
    alpha = np.zeros((image.height, image.width), dtype=np.uint8)
    alpha[:, image.width // 2 :] = 255
    image.putalpha(Image.fromarray(alpha))
    return image


def transparent_palette_png(seed: int = 0) -> bytes:
    """A palette PNG whose top left colour is the transparent one."""
    image = picture(seed).quantize(8)
    return saved(image, "PNG", transparency=image.getpixel((0, 0)))


def grey_16_png(values: np.ndarray | None = None) -> bytes:
    if values is None:
        values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    return saved(Image.fromarray(values), "PNG")


def animated(image_format: str, num_frames: int = 3) -> bytes:
    frames = [picture(seed) for seed in range(num_frames)]
    return saved(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)


def zip_archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.png", saved(picture(), "PNG"))
    return file.getvalue()


def damaged(data: bytes, at: int, replacement: bytes) -> bytes:
    return data[:at] + replacement + data[at + len(replacement) :]


HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>"
SVG_DRAWING = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><title>dot</title><circle r="4"/></svg>'
SVG_READING_A_FILE = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]><svg><text>&x;</text></svg>'
)


def _float_image() -> Image.Image:
    return Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))


def _cut(image_format: str, keep: float, **options: Any) -> bytes:
    data = saved(picture(), image_format, **options)
    return data[: int(len(data) * keep)]


def _png_with_half_a_stream() -> bytes:
    """Every chunk whole and the end in its place, but the compressed pixels stop in the middle."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 0, 0, 0, 0))
    stream = zlib.compress(np.random.default_rng(0).bytes(65 * 48))
    return PNG_SIGNATURE + header + png_chunk(b"IDAT", stream[: len(stream) // 2]) + png_chunk(b"IEND", b"")


BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty.png": ("image_empty", lambda: b""),
    "cut-half.jpg": ("image_truncated", lambda: _cut("JPEG", 0.5)),
    "cut-by-two-bytes.jpg": ("image_truncated", lambda: saved(picture(), "JPEG")[:-2]),
    "only-the-first-marker.jpg": ("image_truncated", lambda: b"\xff\xd8"),
    "cut-progressive.jpg": ("image_truncated", lambda: _cut("JPEG", 0.8, progressive=True)),
    "cut-half.png": ("image_truncated", lambda: _cut("PNG", 0.5)),
    "cut-in-header.png": ("image_truncated", lambda: saved(picture(), "PNG")[:20]),
    "cut-half.webp": ("image_truncated", lambda: _cut("WEBP", 0.5)),
    "cut-half.gif": ("image_truncated", lambda: _cut("GIF", 0.5)),
    "cut-half.bmp": ("image_truncated", lambda: _cut("BMP", 0.5)),
    "cut-half.tiff": ("image_truncated", lambda: _cut("TIFF", 0.5)),
    "cut-compressed.tiff": ("image_truncated", lambda: _cut("TIFF", 0.9, compression="tiff_lzw")),
    "cut-big.tiff": ("image_truncated", lambda: _cut("TIFF", 0.5, big_tiff=True)),
    "text.png": ("image_unidentified", lambda: b"404 page not found\n"),
    "text-about-cars.bmp": ("image_unidentified", lambda: b"BMW makes cars, and this is a text about them."),
    "zeros.jpg": ("image_unidentified", lambda: bytes(1000)),
    "noise.jpg": ("image_unidentified", lambda: np.random.default_rng(1).bytes(1000)),
    "document.png": ("image_unidentified", lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
    "sound.webp": ("image_unidentified", lambda: b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28)),
    "page.png": ("image_is_html", lambda: HTML_PAGE),
    "page-in-utf-16.jpg": ("image_is_html", lambda: HTML_PAGE.decode().encode("utf-16")),
    "page-after-comment.gif": ("image_is_html", lambda: b"\xef\xbb\xbf\n <!-- gone --><HTML><svg/></HTML>"),
    "drawing.png": ("image_is_svg", lambda: SVG_DRAWING),
    "drawing-reading-a-file.png": ("image_is_svg", lambda: SVG_READING_A_FILE),
    "archive.png": ("image_is_archive", zip_archive),
    "compressed.png": ("image_is_archive", lambda: gzip.compress(saved(picture(), "PNG"))),
    "bomb.png": ("image_bomb", lambda: png_claiming(30_000, 30_000)),
    "bomb-line.png": ("image_bomb", lambda: png_claiming(2**31 - 1, 1)),
    "bomb.bmp": ("image_bomb", lambda: bmp_claiming(30_000, 30_000)),
    "bomb.gif": ("image_bomb", lambda: gif_claiming(65_535, 65_535)),
    "bomb.webp": ("image_bomb", lambda: webp_claiming(16_383, 16_383)),
    "too-many-pixels.png": ("image_too_large", lambda: png_of_size(8_000, 6_000)),
    "too-long.png": ("image_too_large", lambda: png_of_size(16_400, 100)),
    "sliver.png": ("image_bad_aspect", lambda: png_of_size(201, 1)),
    "tall-sliver.jpg": ("image_bad_aspect", lambda: saved(picture(width=4, height=804), "JPEG")),
    "too-many-scans.jpg": ("image_too_complex", lambda: jpeg_with_scans(101)),
    "too-many-chunks.png": ("image_too_complex", lambda: png_claiming(8, 8, extra=png_chunk(b"teXt", b"") * 300_001)),
    "no-pixels.png": ("image_corrupt", lambda: png_claiming(0, 0)),
    "half-a-stream.png": ("image_corrupt", lambda: _png_with_half_a_stream()),
    "wrong-checksum.png": ("image_corrupt", lambda: damaged(saved(picture(), "PNG"), 29, b"\xde\xad\xbe\xef")),
    "not-compressed.png": ("image_corrupt", lambda: damaged(saved(picture(), "PNG"), 41, b"\xff" * 8)),
    "text-bomb.png": (
        "image_corrupt",
        lambda: png_claiming(8, 8, extra=png_chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(2**22)))),
    ),
    "no-tables.jpg": ("image_corrupt", lambda: saved(picture(), "JPEG").replace(b"\xff\xdb", b"\xff\xfe")),
    "damaged.webp": ("image_corrupt", lambda: damaged(saved(picture(), "WEBP"), 20, b"\xff" * 10)),
    "phone.heic": ("image_format_unsupported", lambda: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)),
    "picture.avif": (
        "image_format_unsupported",
        lambda: b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif" + bytes(64),
    ),
    "layers.psd": ("image_format_unsupported", lambda: b"8BPS\x00\x01" + bytes(64)),
    "icon.png": ("image_format_unsupported", lambda: saved(picture(), "ICO")),
    "float.tiff": ("image_mode_unsupported", lambda: saved(_float_image(), "TIFF")),
    "whole-numbers.tiff": ("image_mode_unsupported", lambda: saved(picture().convert("I"), "TIFF")),
}
"""File name -> the code that it must be refused with, and its maker."""

GOOD: dict[str, Callable[[int], bytes]] = {
    "plain.jpg": lambda seed: saved(picture(seed), "JPEG"),
    "plain.png": lambda seed: saved(picture(seed), "PNG"),
    "plain.webp": lambda seed: saved(picture(seed), "WEBP"),
    "plain.gif": lambda seed: saved(picture(seed), "GIF"),
    "plain.bmp": lambda seed: saved(picture(seed), "BMP"),
    "plain.tiff": lambda seed: saved(picture(seed), "TIFF"),
    "progressive.jpg": lambda seed: saved(picture(seed), "JPEG", progressive=True),
    "grey.jpg": lambda seed: saved(picture(seed).convert("L"), "JPEG"),
    "print.jpg": lambda seed: saved(picture(seed).convert("CMYK"), "JPEG"),
    "turned.jpg": lambda seed: oriented(6, seed=seed),
    "transparent.png": lambda seed: saved(half_transparent(seed), "PNG"),
    "palette.png": transparent_palette_png,
    "two-tone.png": lambda seed: saved(picture(seed).convert("1"), "PNG"),
    "grey-16.png": lambda seed: grey_16_png(),
    "compressed.tiff": lambda seed: saved(picture(seed), "TIFF", compression="tiff_lzw"),
    "animated.gif": lambda seed: animated("GIF"),
    "animated.webp": lambda seed: animated("WEBP"),
    "one-pixel.png": lambda seed: saved(picture(seed, width=1, height=1), "PNG"),
    "jpeg-named.png": lambda seed: saved(picture(seed), "JPEG"),
    "with-archive-behind.jpg": lambda seed: saved(picture(seed), "JPEG") + zip_archive(),
}
"""Kind of file -> its maker, which takes a seed."""


def write_broken(folder: Path) -> dict[str, str]:
    """Write every broken file into `folder`, and say which error code each must get."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, make) in BROKEN.items():
        (folder / name).write_bytes(make())
    return {name: code for name, (code, _) in BROKEN.items()}


def write_good(folder: Path, n: int) -> list[str]:
    """Write `n` readable files into `folder`, all kinds in turn; returns their names, which sort in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(GOOD.items())
    names = []
    for seed in range(n):
        kind, make = kinds[seed % len(kinds)]
        names.append(f"{seed:05}-{kind}")
        (folder / names[-1]).write_bytes(make(seed))
    return names
