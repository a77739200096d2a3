"""Orientation, EXIF and text: what turns a picture turns it once, and damage to any of it costs nothing."""

from __future__ import annotations

import struct

from PIL import Image

from tests.image_catalogue.case import Case, read
from tests.image_files import ORIENTATION_TAG, damaged, oriented, picture, png_chunk, saved

CLOSE = 12
TURNS = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
DAMAGED_EXIF = {
    "empty": b"Exif\x00\x00",
    "offset": b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
    "noise": b"Exif\x00\x00" + b"\xff" * 40,
}


def upright(orientation: int) -> Image.Image:
    turn = TURNS[orientation]
    return picture() if turn is None else picture().transpose(turn)


def _turned(orientation: int, image_format: str) -> Case:
    within = CLOSE if image_format == "JPEG" else 0
    return read(lambda: oriented(orientation, image_format), lambda: upright(orientation), within=within)


def _exif_pointing_to_itself() -> bytes:
    """An orientation, and a pointer to more tags that leads back to the same ones."""
    entries = struct.pack("<HHII", ORIENTATION_TAG, 3, 1, 6) + struct.pack("<HHII", 34665, 4, 1, 8)
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + struct.pack("<H", 2) + entries + struct.pack("<I", 8)


def _compressed_and_turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    return saved(picture(), "TIFF", compression="tiff_lzw", exif=exif)


def _with_damaged_exif(data: bytes) -> bytes:
    """A file with EXIF of which the first offset leads nowhere."""
    return damaged(data, max(data.rfind(b"II*\x00"), data.rfind(b"MM\x00*")) + 4, b"\xff\xff\xff\xff")


def _with_text(*chunks: bytes) -> bytes:
    data = saved(picture(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


CASES: dict[str, Case] = {
    **{f"turned-{number}.jpg": _turned(number, "JPEG") for number in TURNS},
    **{f"turned-{number}.png": _turned(number, "PNG") for number in (3, 6, 7)},
    **{f"turned-{number}.webp": _turned(number, "WEBP") for number in (3, 6, 7)},
    **{f"turned-{number}.tiff": _turned(number, "TIFF") for number in (3, 6, 7)},
    "turned-and-compressed.tiff": read(_compressed_and_turned, lambda: upright(6)),
    "orientation-99.jpg": read(lambda: oriented(99), within=CLOSE),
    "orientation-0.png": read(lambda: oriented(0, "PNG")),
    "orientation-99.tiff": read(lambda: oriented(99, "TIFF")),
    **{
        f"damaged-exif-{kind}.jpg": read(
            lambda exif=exif: saved(picture(), "JPEG", exif=exif, quality=95), within=CLOSE
        )
        for kind, exif in DAMAGED_EXIF.items()
    },
    "damaged-exif.png": read(lambda: saved(picture(), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")),
    "damaged-exif.webp": read(lambda: _with_damaged_exif(oriented(6, "WEBP"))),
    "exif-in-a-circle.jpg": read(
        lambda: saved(picture(), "JPEG", exif=_exif_pointing_to_itself(), quality=95), lambda: upright(6), within=CLOSE
    ),
    "two-thousand-texts.png": read(lambda: _with_text(*[png_chunk(b"tEXt", b"k\x00v")] * 2_000)),
    "comment.gif": read(lambda: saved(picture(), "GIF", comment=b"x" * 200), within=CLOSE),
    "gamma.png": read(lambda: _with_text(png_chunk(b"gAMA", struct.pack(">I", 100_000)))),
}
