"""Image files made on the spot: none is kept in the repository.

The makers serve the tests of decoding and `image_catalogue`; `write_good` fills folders for tests of jobs. Everything
is small and made in milliseconds; what claims to be huge only claims it.
"""

from __future__ import annotations

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


def png(width: int, height: int, rows: bytes, *, depth: int = 8, kind: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of any depth and kind of colour.

    Args:
        rows: each with its filter byte, before compression.
        kind: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
        extra: chunks between header and pixels.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return PNG_SIGNATURE + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def tiff(width: int, height: int, pixels: bytes, *, bits: int = 8, white: int = 1, samples: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, in little-endian order.

    Args:
        white: 1 if the largest value is white, 0 if it is black; 2 for RGB.
    """
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: white, 273: 8, 277: samples, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\x00" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of one of its tags."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (num_tags,) = struct.unpack_from("<H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * num_tags, 12):
        if struct.unpack_from("<H", data, at) == (tag,):
            return damaged(data, at + 2, struct.pack("<HII", 4, 1, value))
    raise ValueError(f"the file has no tag {tag}")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = saved(picture(), "JPEG")
    return damaged(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


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
