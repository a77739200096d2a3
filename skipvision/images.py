"""Bytes in, a picture out: bounded, upright, RGB, uint8; or an `ImageError` that says what is wrong with them.

The order is the safety. Cheap questions come first and each guards the next: bytes, signature, structure, size in
the header, and only then pixels. The format is told by signature, so that exactly one decoder of Pillow is ever
tried, and it is called by its own class rather than through `Image.open`: that one judges sizes by a limit that is
global to the process, and warns through a filter that is too. Here every limit travels with the call, no global is
read or changed, and threads may decode side by side.

No message repeats what a decoder said: Pillow's words hold memory addresses and file names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, TiffImageFile

from skipvision.errors import ConfigError, ImageError
from skipvision.image_colours import match_transparency, to_srgb
from skipvision.image_decoders import ALWAYS_READ, OPTIONAL_FORMATS, check_optional, decoder_of
from skipvision.image_formats import (
    MAX_PARTS,
    Format,
    Impostor,
    OptionalFormat,
    Outline,
    detect_format,
    detect_impostor,
    detect_unsupported,
    outline,
)
from skipvision.image_scale import Target, reduce

RgbPixels = NDArray[np.uint8]
"""(height, width, 3) uint8."""

ImageCode = Literal[
    "image_missing", "image_unreadable", "image_empty", "image_truncated", "image_unidentified", "image_is_html",
    "image_is_archive", "image_is_svg", "image_bomb", "image_too_large", "image_bad_aspect", "image_too_complex",
    "image_corrupt", "image_format_unsupported", "image_mode_unsupported",
]  # fmt: skip

BOMB_PIXELS = 178_956_970
"""A header that claims more than this is taken for an attack, not for a large picture. Pillow draws the same line."""

_IMPOSTORS: dict[Impostor, tuple[ImageCode, str]] = {
    "html": ("image_is_html", "this is a web page, not an image; its address may ask for a login or be gone"),
    "svg": ("image_is_svg", "this is an SVG drawing, which is not rendered here; convert it to PNG"),
    "archive": ("image_is_archive", "this is a compressed file or an archive, not an image; unpack it first"),
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What one image may be and cost. All but the bytes are checked in the header, before a pixel is decoded."""

    image_formats: tuple[OptionalFormat, ...] = ()
    """Formats that are read beside JPEG, PNG, WebP, GIF, BMP and TIFF."""

    max_bytes: int = 64 * 2**20
    """Size of the file."""

    max_pixels: int = 40_000_000
    """Width times height; decoding takes up to 17 bytes of memory for each, so 680 MB at this size."""

    max_side: int = 16_384
    """Pixels of the longer side."""

    max_aspect: int = 200
    """The longer side divided by the shorter one; processors that keep the aspect fail on slivers."""

    max_scans: int = 100
    """Passes of a progressive JPEG. Time is linear in passes times pixels; cameras and websites write about ten."""

    def __post_init__(self) -> None:
        check_optional(self.image_formats)
        for name in (setting.name for setting in fields(self) if setting.name != "image_formats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")


DEFAULT_LIMITS = ImageLimits()


def read_image(path: str | Path, *, limits: ImageLimits = DEFAULT_LIMITS, target: Target | None = None) -> RgbPixels:
    """Read and decode one image file, as `decode_image` does.

    Raises:
        ImageError: `image_missing`, `image_unreadable`, or what `decode_image` raises. The message leaves the
            path out: whoever knows that it is the user's own adds it.
    """
    return decode_image(_read_file(path, limits.max_bytes), limits=limits, target=target)


def decode_image(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, target: Target | None = None) -> RgbPixels:
    """Decode the first frame of one image file, turned upright, in sRGB, laid on white where it is transparent.

    Args:
        target: what the picture is going to be resized to, such as a preparer's `target_size`. A JPEG that is far
            larger is then decoded at a half, a quarter or an eighth of its size, near to exact; see `image_scale`.
            None: as it is.

    Returns:
        (height, width, 3) uint8, writable, in memory order.

    Raises:
        ImageError: with one of `ImageCode`.
    """
    image_format = _identify(data, limits)
    structure = outline(data, image_format)
    _check_structure(structure, limits)
    if structure.size is not None:
        _check_size(*structure.size, limits)
    with _translating_failures(image_format, structure):
        image = decoder_of(image_format)(BytesIO(data))
        _check_size(*image.size, limits)
        _check_strips(image)
        match_transparency(image)
        if target is not None and isinstance(image, JpegImageFile):
            reduce(image, target, is_on_its_side=_turn(image) in _QUARTER_TURNS)
        image.load()
        _check_size(*image.size, limits)  # of HEIC, decoding may find another size than the header's
        return np.array(_upright(to_srgb(image), _turn(image)))


def _read_file(path: str | Path, max_bytes: int) -> bytes:
    """The file's bytes, at most one more than `max_bytes`, so that a file that is too large shows as such."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refusal("image_unreadable", "this is a folder or a device, not a file")
            return file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _refusal("image_missing", "there is no such file") from error
    except OSError as error:
        raise _refusal("image_unreadable", "the file cannot be read; check its permissions") from error


def _identify(data: bytes, limits: ImageLimits) -> Format:
    if not data:
        raise _refusal("image_empty", "the image has zero bytes")
    if len(data) > limits.max_bytes:
        raise _refusal("image_too_large", f"the file is larger than {limits.max_bytes} bytes; scale it down")
    image_format = detect_format(data)
    if image_format in OPTIONAL_FORMATS and image_format not in limits.image_formats:
        remedy = f"name {image_format} in the setting image_formats, or convert it to one of {', '.join(ALWAYS_READ)}"
        raise _refusal(
            "image_format_unsupported", f"{image_format} files are read only where that is asked for; {remedy}"
        )
    if image_format is not None:
        return image_format
    if impostor := detect_impostor(data):
        raise _refusal(*_IMPOSTORS[impostor])
    supported = ", ".join(ALWAYS_READ)
    if name := detect_unsupported(data):
        raise _refusal("image_format_unsupported", f"{name} files are not read; convert it to one of {supported}")
    raise _refusal("image_unidentified", f"this is not an image of any known format; send one of {supported}")


def _check_structure(structure: Outline, limits: ImageLimits) -> None:
    if structure.num_scans > limits.max_scans:
        message = f"the image takes more than {limits.max_scans} passes to decode; save it without progressive scans"
        raise _refusal("image_too_complex", message)
    if structure.num_parts > MAX_PARTS:
        raise _refusal("image_too_complex", f"the file has more than {MAX_PARTS} parts; save it again")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    says = f"the image is {width} x {height} pixels"
    if width * height > BOMB_PIXELS:
        raise _refusal("image_bomb", f"{says} by its header, far more than any picture accepted here")
    if min(width, height) < 1:
        raise _refusal("image_corrupt", f"{says}; there is nothing to see")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise _refusal("image_bad_aspect", f"{says}; one side may be at most {limits.max_aspect} times the other")
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        most = f"{limits.max_pixels} pixels and {limits.max_side} on a side"
        raise _refusal("image_too_large", f"{says}; the most is {most}; scale it down")


def _check_strips(image: ImageFile) -> None:
    """Pillow leaves rows of a TIFF black for which the file names no strip."""
    if not isinstance(image, TiffImageFile):
        return
    if max((tile.extents[3] for tile in image.tile if tile.extents), default=0) < image.tag_v2[IMAGELENGTH]:
        raise _refusal("image_corrupt", "the TIFF file does not say where all of its pixels are")


@contextmanager
def _translating_failures(image_format: Format, structure: Outline) -> Iterator[None]:
    """The one boundary to Pillow. Hostile bytes make its decoders raise nearly any kind of exception."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _refusal("image_bomb", "the image claims far more pixels than any picture accepted here") from error
    except Exception as error:
        if structure.is_cut_short:
            message = f"the {image_format} file ends too early; part of it was lost on the way, send it again"
            raise _refusal("image_truncated", message) from error
        raise _refusal("image_corrupt", f"the {image_format} data is damaged and cannot be decoded") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright. TIFF files come upright from Pillow already, their tag removed."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # damaged metadata, of whatever kind, does not make a good picture unusable
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _refusal(code: ImageCode, message: str) -> ImageError:
    return ImageError(message, code=code)
