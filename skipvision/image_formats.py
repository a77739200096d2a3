"""What image bytes say of themselves, read without decoding a pixel.

Three questions, all answered in time linear in the file and without Pillow: which format is this, is it something
else in an image's clothes, and does the file reach the end that its own structure promises. A decoder's messages
cannot answer the last one: the same words come for a file that was cut and for one that was written wrongly.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

OptionalFormat = Literal["AVIF", "HEIC"]
"""Read only where they are asked for: their decoders are the youngest, and the largest."""

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"] | OptionalFormat
Impostor = Literal["html", "svg", "archive"]

_MOST_BRANDS = 64
MAX_PARTS = 300_000
"""Segments, chunks, blocks or tags that are walked. The largest honest GIF under the byte cap has about 260,000
data blocks; Pillow walks its parts in Python too, so millions of empty ones would cost minutes."""

_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
             b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")  # fmt: skip
_UNSUPPORTED = (
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"), (b"8BPS", "Photoshop"), (b"\x00\x00\x01\x00", "icon"), (b"%!PS", "PostScript"),
    (b"\x76\x2f\x31\x01", "OpenEXR"), (b"DDS ", "DDS"), (b"qoif", "QOI"), (b"SIMPLE  =", "FITS"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"), (b"BPG\xfb", "BPG"),
)  # fmt: skip
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_CONTAINER_BRANDS = frozenset({b"mif1", b"msf1", b"miaf"})
"""Files of both formats may begin with one of these; the brands they are compatible with tell which it is."""
_MARKUP_START = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*<[!?a-z]", re.IGNORECASE)
_MARKUP_ROOT = re.compile(
    rb"<(?:!doctype\s+)?(svg|html|head|body|title|script|style|meta|table|iframe|div|h1|p)\b", re.IGNORECASE
)
_TIFF_KIND_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_NUMBERS = {3: "H", 4: "I", 13: "I", 16: "Q"}
_TIFF_PIXEL_PAIRS = ((273, 279), (324, 325))  # where strips begin and how long they are; the same of tiles
_TIFF_PIXEL_TAGS = frozenset(sum(_TIFF_PIXEL_PAIRS, ()))
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")  # stuffing, fill and restart markers passed over


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """The skeleton of one image file, up to the end of its first picture."""

    num_parts: int
    """Segments, chunks, blocks or tags, counted up to one more than `MAX_PARTS`."""
    num_scans: int = 1
    """Passes over the pixels. Decoding time is linear in them; only a JPEG has more than one."""
    is_cut_short: bool
    """The file ends before its own structure does."""
    size: tuple[int, int] | None = None
    """Width and height by the header, of a format whose decoder reserves memory for them as soon as it is made."""


def detect_format(data: bytes) -> Format | None:
    """The supported format that `data` begins like, by its signature alone; None when by none of them."""
    if data.startswith(b"\xff\xd8"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"  # the letters alone are also how a text about cars begins
    return _format_by_brand(data) if data[4:8] == b"ftyp" else None


def detect_impostor(data: bytes) -> Impostor | None:
    """What else than a raster image `data` begins like: a web page, a drawing, an archive; None when unknown."""
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        return "archive"
    head = data[:4096].replace(b"\x00", b"")  # so that UTF-16 reads like ASCII
    root = _MARKUP_ROOT.search(head) if _MARKUP_START.match(head) else None
    if root is None:
        return None
    return "svg" if root[1].lower() == b"svg" else "html"


def detect_unsupported(data: bytes) -> str | None:
    """The name of an image format that is recognised and never read here, such as "Photoshop"."""
    return next((name for signature, name in _UNSUPPORTED if data.startswith(signature)), None)


def _format_by_brand(data: bytes) -> OptionalFormat | None:
    """Of a file of boxes, which may also be a film."""
    major, compatible = data[8:12], data[16 : min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)]
    brands = {compatible[at : at + 4] for at in range(0, len(compatible), 4)} if major in _CONTAINER_BRANDS else {major}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS or major in _CONTAINER_BRANDS else None


def outline(data: bytes, image_format: Format) -> Outline:
    """Walk the structure of `data`, which begins like `image_format`."""
    return _OUTLINES[image_format](data)


def _outline_jpeg(data: bytes) -> Outline:
    position, num_parts, num_scans = 2, 0, 0
    while num_parts <= MAX_PARTS and (marker := _JPEG_MARKER.search(data, position)):
        kind, position = marker[1], marker.end()
        if kind == b"\xd9":
            return Outline(num_parts=num_parts, num_scans=num_scans, is_cut_short=False)
        num_parts += 1
        num_scans += kind == b"\xda"
        if kind != b"\xd8":
            position += int.from_bytes(data[position : position + 2], "big")
    return Outline(num_parts=num_parts, num_scans=num_scans, is_cut_short=True)


def _outline_png(data: bytes) -> Outline:
    position, num_parts = 8, 0
    while num_parts <= MAX_PARTS and position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        num_parts, position = num_parts + 1, position + 12 + length
        if kind == b"IEND":
            return Outline(num_parts=num_parts, is_cut_short=position > len(data))
    return Outline(num_parts=num_parts, is_cut_short=True)


def _outline_gif(data: bytes) -> Outline:
    position, num_parts, is_picture = 13, 0, False
    try:
        position += _gif_table_bytes(data[10])
        while not is_picture and num_parts <= MAX_PARTS and data[position] in b"\x21\x2c":
            is_picture = data[position] == 0x2C
            position += 11 + _gif_table_bytes(data[position + 9]) if is_picture else 2
            while num_parts <= MAX_PARTS:
                num_parts, length = num_parts + 1, data[position]
                position += 1 + length
                if length == 0:
                    break
    except IndexError:
        return Outline(num_parts=num_parts, is_cut_short=True)
    return Outline(num_parts=num_parts, is_cut_short=False)


def _gif_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _outline_webp(data: bytes) -> Outline:
    is_cut_short = 8 + int.from_bytes(data[4:8], "little") > len(data)
    return Outline(num_parts=1, is_cut_short=is_cut_short, size=_webp_size(data))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the first chunk; None if it is of no known kind, or not there."""
    if len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _outline_bmp(data: bytes) -> Outline:
    try:
        file_bytes, pixels_at, header_bytes = struct.unpack_from("<I4xII", data, 2)
        if header_bytes >= 40:
            width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
            if compression in (0, 3):  # uncompressed: the size is known, whatever the file says of it
                file_bytes = pixels_at + abs(height) * ((width * bits + 31) // 32 * 4)
    except struct.error:
        return Outline(num_parts=1, is_cut_short=True)
    return Outline(num_parts=1, is_cut_short=file_bytes > len(data))


def _outline_tiff(data: bytes) -> Outline:
    """Each value outside its tag and each strip or tile of the first page must lie inside the file."""
    num_parts, end, pixels = 0, 0, {}
    try:
        for tag, kind, count, at in _tiff_tags(data):
            num_parts += 1 + (count if tag in _TIFF_PIXEL_TAGS else 0)
            if num_parts > MAX_PARTS:
                return Outline(num_parts=num_parts, is_cut_short=False)
            end = max(end, at + count * _TIFF_KIND_BYTES.get(kind, 1))
            if tag in _TIFF_PIXEL_TAGS and (code := _TIFF_NUMBERS.get(kind)):
                order = "<" if data.startswith(b"II") else ">"
                pixels[tag] = struct.unpack_from(f"{order}{count}{code}", data, at)
    except (struct.error, OverflowError):  # OverflowError: an offset beyond any memory
        return Outline(num_parts=num_parts, is_cut_short=True)
    for offsets, lengths in _TIFF_PIXEL_PAIRS:
        end = max([end, *map(sum, zip(pixels.get(offsets, ()), pixels.get(lengths, ()), strict=False))])
    return Outline(num_parts=num_parts, is_cut_short=end > len(data))


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(tag, kind, number of values, position of the first value) of the first page; struct.error past the end."""
    order, is_big = "<" if data.startswith(b"II") else ">", b"+" in data[2:4]
    offset, entry, count_format = ("Q", "HHQ", "Q") if is_big else ("I", "HHI", "H")
    size, start = struct.calcsize(f"={offset}"), struct.calcsize(f"={entry}")
    (directory,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (num_tags,) = struct.unpack_from(order + count_format, data, directory)
    first = directory + struct.calcsize(f"={count_format}")
    for at in range(first, first + num_tags * (start + size), start + size):
        tag, kind, count = struct.unpack_from(order + entry, data, at)
        is_inline = count * _TIFF_KIND_BYTES.get(kind, 1) <= size
        yield tag, kind, count, at + start if is_inline else struct.unpack_from(order + offset, data, at + start)[0]


def _outline_boxes(data: bytes) -> Outline:
    """Of AVIF and HEIC. The boxes must come to their ends, and the one that holds the pixels must be there."""
    position, num_parts, has_pixels = 0, 0, False
    while position < len(data) and num_parts <= MAX_PARTS:
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        num_parts, has_pixels = num_parts + 1, has_pixels or kind == b"mdat"
        if length == 0:  # the rest of the file
            position = len(data)
        elif length < 8:
            return Outline(num_parts=num_parts, is_cut_short=False)
        else:
            position += length
    return Outline(num_parts=num_parts, is_cut_short=position > len(data) or not has_pixels)


_OUTLINES: dict[Format, Callable[[bytes], Outline]] = {
    "JPEG": _outline_jpeg,
    "PNG": _outline_png,
    "WEBP": _outline_webp,
    "GIF": _outline_gif,
    "BMP": _outline_bmp,
    "TIFF": _outline_tiff,
    "AVIF": _outline_boxes,
    "HEIC": _outline_boxes,
}
