"""Stored pixels of every kind -> sRGB with 8 bits a channel, as a viewer shows them.

In this order: the brightness that numbers stand for, transparency on white, the embedded colour profile. Where Pillow
would cut, drop or miss one of these, the reason stands beside what is done instead. Gamma and chromaticities that a
PNG states without a profile are ignored, as Pillow and the models' own processors do.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from skipvision.errors import ImageError

MAX_PROFILE_BYTES = 4 * 2**20
"""Larger colour profiles are ignored; those of printing presses have up to 3 MB."""

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"})
_GREY_MODES = frozenset({"1", "L", "LA"})
_SPACES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}
"""By the mode of the pixels that a profile speaks of, what its header calls them."""
_DEVICES = (b"mntr", b"scnr", b"prtr", b"spac")
"""Profiles that say what a device's numbers look like; the others lead from one profile to another."""
_SAME_COLOUR = 2
"""A profile that moves no colour by more than this many of 255 levels is sRGB by another maker: sRGB's own tables,
rounded to 8 or 16 bits, move by 1."""


def to_srgb(image: Image.Image) -> Image.Image:
    """A decoded image as opaque RGB in sRGB.

    Raises:
        ImageError: `image_mode_unsupported`.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        return _applied(image, profile, "CMYK")
    is_grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
    flat = _on_white(_eight_bits(image))
    if is_grey and _transform(profile, "L") is not None:
        return _applied(flat.getchannel(0), profile, "L")
    return _applied(flat, profile, "RGB")


def match_transparency(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG that is not decoded yet to the 8 bits in which its pixels will come.

    The file states it in the depth of the pixels, and Pillow compares it as it stands.
    """
    if not isinstance(image, PngImageFile) or not image.tile:
        return
    hidden, raw_mode = image.info.get("transparency"), image.tile[0].args
    if raw_mode == "RGB;16B" and isinstance(hidden, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in hidden)
    if raw_mode in ("L;2", "L;4") and isinstance(hidden, int):
        image.info["transparency"] = hidden * (85 if raw_mode == "L;2" else 17)


def _on_white(image: Image.Image) -> Image.Image:
    """`image` as RGB, transparent parts on white: what a viewer shows, not what hides under the mask."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layered = image.convert("RGBA")
    canvas = Image.new("RGB", layered.size, "white")
    canvas.paste(layered, mask=layered.getchannel("A"))
    return canvas


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; every other mode is left as it is, and refused if its numbers have no meaning."""
    if image.mode.startswith("I;16"):
        return _scaled(image)
    if image.mode not in _MODES:
        message = f"pixels of kind {image.mode} have no agreed brightness range; save the image with 8 bits a channel"
        raise ImageError(message, code="image_mode_unsupported")
    return image


def _scaled(image: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit grey; Pillow's own conversion cuts all above 255 to white."""
    values = np.asarray(image)
    white, is_inverted = _brightness(image)
    grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if is_inverted:
        grey = 255 - grey
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey[values == hidden] = 255
    return Image.fromarray(grey)


def _brightness(image: Image.Image) -> tuple[int, bool]:
    """The largest value of 16-bit grey, and whether it is black instead of white.

    A TIFF may store 12 bits, and may count from white to black. Pillow unpacks the values and leaves both to us.
    """
    if not isinstance(image, TiffImageFile):
        return 65_535, False
    (bits, *_) = image.tag_v2.get(BITSPERSAMPLE, (16,))
    return (1 << bits) - 1, image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0


def _applied(image: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    """`image`, of this mode, as RGB: by its profile if that is a usable one of its kind, else by Pillow's rule."""
    transform = _transform(profile, mode)
    if transform is not None:
        return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None where there is nothing to do or the profile is not to be trusted."""
    if profile is None or not 128 < len(profile) <= MAX_PROFILE_BYTES:
        return None
    is_of_device = profile[36:40] == b"acsp" and profile[12:16] in _DEVICES
    return _built(profile, mode) if is_of_device and profile[16:20] == _SPACES[mode] else None


@lru_cache(maxsize=8)  # it takes 4 ms, as long as a small JPEG
def _built(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode != "CMYK" and _moves_nothing(transform, mode) else transform
    except MemoryError:
        raise
    except Exception:  # a damaged profile, in whatever way, does not make a good picture unusable
        return None


def _moves_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform from RGB or grey is sRGB's own, judged by all greys, or by 729 colours."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    before = np.arange(256, dtype=np.uint8)[None] if mode == "L" else colours
    after = np.asarray(transform.apply(Image.fromarray(before))).astype(int)
    return bool(np.abs(after - (before[..., None] if mode == "L" else before)).max() <= _SAME_COLOUR)
