"""Bits, checksums and structure that are wrong: refused where a decoder can tell, read where none can."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tests.image_catalogue.case import Case, read, refused, survived
from tests.image_files import PNG_SIGNATURE, damaged, picture, png_chunk, saved, tiff, with_tag


def _flipped(image_format: str, behind_middle: int) -> bytes:
    """One bit of the compressed pixels is wrong."""
    data = saved(picture(), image_format)
    at = len(data) // 2 + behind_middle
    return damaged(data, at, bytes([data[at] ^ 0x10]))


def _png_with_half_a_stream() -> bytes:
    """Every chunk whole and the end in its place, but the compressed pixels stop in the middle."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 0, 0, 0, 0))
    stream = zlib.compress(np.random.default_rng(0).bytes(65 * 48))
    return PNG_SIGNATURE + header + png_chunk(b"IDAT", stream[: len(stream) // 2]) + png_chunk(b"IEND", b"")


def _png_without_palette() -> bytes:
    data = saved(picture().quantize(8), "PNG")
    at = data.index(b"PLTE") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    return data[:at] + data[at + 12 + length :]


def _tiff_whose_next_page_is_itself() -> bytes:
    data = saved(picture(), "TIFF")
    (directory,) = struct.unpack_from("<I", data, 4)
    (num_tags,) = struct.unpack_from("<H", data, directory)
    return damaged(data, directory + 2 + 12 * num_tags, struct.pack("<I", directory))


def _tiff_whose_sub_page_is_itself() -> bytes:
    """The tag that leads to EXIF (34665), in the place of the last one, leads back to where it stands."""
    data = tiff(8, 8, bytes(64))
    (directory,) = struct.unpack_from("<I", data, 4)
    return damaged(data, len(data) - 4 - 12, struct.pack("<HHII", 34665, 4, 1, directory))


def _gif() -> tuple[bytes, int]:
    """A GIF, and where its frame begins."""
    data = saved(picture().convert("P"), "GIF")
    return data, data.index(b"\x2c", 13 + 3 * 256)


def _gif_with_a_frame_beyond_its_canvas() -> bytes:
    data, frame = _gif()
    return damaged(data, frame + 5, struct.pack("<HH", 640, 480))


def _gif_without_palette() -> bytes:
    data, _ = _gif()
    return data[:10] + b"\x00" + data[11:13] + data[13 + 3 * 256 :]


def _without_tables(marker: bytes) -> bytes:
    """A JPEG whose segments of a kind are comments."""
    return saved(picture(), "JPEG").replace(marker, b"\xff\xfe")


CASES: dict[str, Case] = {
    "one-bit-flipped.jpg": survived(lambda: _flipped("JPEG", 300)),
    "one-bit-flipped.png": refused("image_corrupt", lambda: _flipped("PNG", 0)),
    "one-bit-flipped.webp": survived(lambda: _flipped("WEBP", 10)),
    "one-bit-flipped.gif": survived(lambda: _flipped("GIF", 30)),
    "one-bit-flipped.bmp": survived(lambda: _flipped("BMP", 0)),
    "one-bit-flipped.tiff": survived(lambda: _flipped("TIFF", 0)),
    "wrong-checksum.png": refused("image_corrupt", lambda: damaged(saved(picture(), "PNG"), 29, b"\xde\xad\xbe\xef")),
    "checksum-of-the-end.png": read(lambda: saved(picture(), "PNG")[:-4] + bytes(4)),
    "checksum-of-the-pixels.png": read(
        lambda: saved(picture(), "PNG")[:-16] + bytes(4) + saved(picture(), "PNG")[-12:]
    ),
    "half-a-stream.png": refused("image_corrupt", _png_with_half_a_stream),
    "not-compressed.png": refused("image_corrupt", lambda: damaged(saved(picture(), "PNG"), 41, b"\xff" * 8)),
    "no-palette.png": refused("image_corrupt", _png_without_palette),
    "a-second-header.png": survived(
        lambda: saved(picture(), "PNG")[:33] + saved(picture(), "PNG")[8:33] + saved(picture(), "PNG")[33:]
    ),
    "no-tables.jpg": refused("image_corrupt", lambda: _without_tables(b"\xff\xdb")),
    "no-frame-header.jpg": refused("image_corrupt", lambda: _without_tables(b"\xff\xc0")),
    "standard-huffman.jpg": survived(lambda: _without_tables(b"\xff\xc4")),
    "nothing-between-the-ends.jpg": refused("image_corrupt", lambda: b"\xff\xd8\xff\xd9"),
    "twelve-bits.jpg": refused("image_corrupt", lambda: damaged(saved(picture(), "JPEG"), 162, b"\x0c")),
    "noise-before-the-end.jpg": read(
        lambda: saved(picture(), "JPEG", quality=95)[:-2] + b"noise" * 20 + b"\xff\xd9", within=12
    ),
    "lost-restart-marker.jpg": survived(
        lambda: saved(picture(), "JPEG", restart_marker_blocks=2).replace(b"\xff\xd1", b"", 1)
    ),
    "damaged.webp": refused("image_corrupt", lambda: damaged(saved(picture(), "WEBP"), 20, b"\xff" * 6)),
    "no-image.webp": refused("image_corrupt", lambda: b"RIFF\x04\x00\x00\x00WEBP"),
    "length-too-short.webp": refused(
        "image_corrupt", lambda: damaged(saved(picture(), "WEBP"), 4, b"\x14\x00\x00\x00")
    ),
    "frame-beyond-canvas.gif": refused("image_corrupt", _gif_with_a_frame_beyond_its_canvas),
    "no-palette.gif": refused("image_corrupt", _gif_without_palette),
    "seven-bits.bmp": refused("image_corrupt", lambda: damaged(saved(picture(), "BMP"), 28, b"\x07")),
    "next-page-is-itself.tiff": read(_tiff_whose_next_page_is_itself),
    "sub-page-is-itself.tiff": survived(_tiff_whose_sub_page_is_itself, size=(8, 8)),
    "directory-beyond-the-end.tiff": refused(
        "image_truncated", lambda: damaged(saved(picture(), "TIFF"), 4, b"\x00\x00\x00\x80")
    ),
    "directory-in-the-header.tiff": refused(
        "image_truncated", lambda: damaged(saved(picture(), "TIFF"), 4, b"\x02\x00\x00\x00")
    ),
    "unknown-compression.tiff": refused("image_corrupt", lambda: with_tag(saved(picture(), "TIFF"), 259, 999)),
    "unknown-colours.tiff": refused("image_corrupt", lambda: with_tag(saved(picture(), "TIFF"), 262, 99)),
    "many-samples.tiff": refused("image_corrupt", lambda: with_tag(saved(picture(), "TIFF"), 277, 65_535)),
    "missing-strips.tiff": refused("image_corrupt", lambda: with_tag(tiff(8, 8, bytes(64)), 257, 16)),
}
