"""Inks, LAB, and colour profiles: honoured where they are sound, ignored where they are not."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image, ImageCms

from skipvision.image_colours import MAX_PROFILE_BYTES
from tests.colour_profiles import (
    ADOBE,
    ADOBE_GAMMA,
    DISPLAY_P3,
    SRGB,
    SWAPPED,
    grey_profile,
    in_srgb,
    ink_profile,
    rgb_profile,
)
from tests.image_catalogue.case import Case, read
from tests.image_files import damaged, half_transparent, picture, saved

CLOSE = 12
COLOUR = (200, 100, 50)


def _plain(*colour: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (16, 16), colour if len(colour) > 1 else colour[0])


def _seen(primaries: tuple, gamma: float | None = None) -> Image.Image:
    return _plain(*in_srgb(COLOUR, primaries, gamma).round().astype(int).tolist())


def _swapped() -> Image.Image:
    """`picture()`, its channels one further."""
    return Image.fromarray(np.roll(np.asarray(picture()), 1, axis=2))


def _inks(*inks: int) -> Image.Image:
    return _plain(*inks, mode="CMYK")


def _without_adobe_marker() -> bytes:
    """The marker that says how inks are stored, as a comment."""
    return saved(_inks(0, 255, 255, 0), "JPEG", quality=95).replace(b"\xff\xee", b"\xff\xfe", 1)


def _inks_as_luma() -> bytes:
    """YCCK: red as inks, these turned to brightness and colour, as Photoshop stores them."""
    luma = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    data = saved(_inks(*(255 - level for level in luma), 0), "JPEG", quality=95)
    return damaged(data, data.index(b"Adobe") + 11, b"\x02")


def _with_profile(profile: bytes, image_format: str = "PNG", image: Image.Image | None = None) -> bytes:
    return saved(image or picture(), image_format, icc_profile=profile)


def _profiled(
    profile: bytes, seen: Image.Image, image: Image.Image, image_format: str = "PNG", within: int = 2
) -> Case:
    return read(lambda: _with_profile(profile, image_format, image), lambda: seen, within=within, pillow_agrees=False)


def _ignored(profile: bytes) -> Case:
    return read(lambda: _with_profile(profile))


def _half_white_swapped() -> Image.Image:
    image = _swapped()
    image.paste((255, 255, 255), (0, 0, 32, 48))
    return image


_SWAPPED = rgb_profile(SWAPPED)

CASES: dict[str, Case] = {
    "inks.jpg": read(lambda: saved(_inks(0, 255, 255, 0), "JPEG", quality=95), lambda: _plain(255, 0, 0), within=4),
    "inks-without-marker.jpg": read(_without_adobe_marker, lambda: _plain(255, 0, 0), within=4),
    "inks-as-luma.jpg": read(_inks_as_luma, lambda: _plain(255, 0, 0), within=4),
    "inks.tiff": read(lambda: saved(_inks(0, 255, 255, 0), "TIFF"), lambda: _plain(255, 0, 0)),
    "inks-with-black.tiff": read(lambda: saved(_inks(51, 0, 0, 51), "TIFF"), lambda: _plain(163, 204, 204)),
    "luma.tiff": read(lambda: saved(picture().convert("YCbCr"), "TIFF"), within=3),
    "lab-white.tiff": read(
        lambda: saved(_plain(255, 128, 128, mode="LAB"), "TIFF"), lambda: _plain(255, 255, 255), within=2
    ),
    "lab-red.tiff": read(lambda: saved(_plain(138, 209, 198, mode="LAB"), "TIFF"), lambda: _plain(254, 0, 0), within=6),
    "profile-srgb.png": read(lambda: _with_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())),
    "profile-srgb-by-hand.png": read(lambda: _with_profile(rgb_profile(SRGB))),
    "profile-adobe.png": _profiled(rgb_profile(ADOBE, ADOBE_GAMMA), _seen(ADOBE, ADOBE_GAMMA), _plain(*COLOUR)),
    "profile-adobe.jpg": _profiled(
        rgb_profile(ADOBE, ADOBE_GAMMA), _seen(ADOBE, ADOBE_GAMMA), _plain(*COLOUR), "JPEG", within=5
    ),
    "profile-p3.png": _profiled(rgb_profile(DISPLAY_P3), _seen(DISPLAY_P3), _plain(*COLOUR)),
    "profile-p3.webp": _profiled(rgb_profile(DISPLAY_P3), _seen(DISPLAY_P3), _plain(*COLOUR), "WEBP", within=5),
    "profile-p3.tiff": _profiled(rgb_profile(DISPLAY_P3), _seen(DISPLAY_P3), _plain(*COLOUR), "TIFF"),
    "profile-swapped.png": _profiled(_SWAPPED, _swapped(), picture()),
    "profile-swapped.jpg": _profiled(_SWAPPED, _swapped(), picture(), "JPEG", within=CLOSE),
    "profile-swapped-palette.png": _profiled(_SWAPPED, _swapped(), picture().quantize(8)),
    "profile-swapped-transparent.png": _profiled(_SWAPPED, _half_white_swapped(), half_transparent()),
    "profile-of-grey.png": _profiled(grey_profile(1.0), _plain(188, 188, 188), _plain(128, mode="L")),
    "profile-of-grey.jpg": _profiled(grey_profile(1.0), _plain(188, 188, 188), _plain(128, mode="L"), "JPEG", within=4),
    "profile-of-inks-white.jpg": _profiled(ink_profile(), _plain(255, 255, 255), _inks(0, 255, 255, 255), "JPEG"),
    "profile-of-inks-black.tiff": _profiled(ink_profile(), _plain(0, 0, 0), _inks(255, 0, 0, 0), "TIFF"),
    "profile-of-colours-on-grey.png": read(
        lambda: _with_profile(_SWAPPED, image=picture().convert("L")),
        lambda: picture().convert("L").convert("RGB"),
        within=2,
    ),
    "profile-nonsense.png": _ignored(b"nonsense" * 40),
    "profile-empty.jpg": read(lambda: saved(picture(), "JPEG", quality=95, icc_profile=b"\x00"), within=CLOSE),
    "profile-cut.png": _ignored(_SWAPPED[:200]),
    "profile-only-a-header.png": _ignored(_SWAPPED[:132]),
    "profile-of-inks-on-colours.png": _ignored(ink_profile()),
    "profile-of-grey-on-colours.png": _ignored(grey_profile(1.0)),
    "profile-of-a-link.png": _ignored(rgb_profile(SWAPPED, kind=b"link")),
    "profile-without-tags.png": _ignored(damaged(_SWAPPED, 128, bytes(4))),
    "profile-of-endless-tags.png": _ignored(damaged(_SWAPPED, 128, b"\xff" * 4)),
    "profile-tags-beyond.png": _ignored(
        damaged(
            _SWAPPED,
            132,
            b"".join(
                struct.pack(">4sII", name, 2**31, 2**31)
                for name in (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
            ),
        )
    ),
    "profile-endless-curve.png": _ignored(
        _SWAPPED.replace(b"para" + bytes(4), b"curv" + bytes(4)).replace(
            b"\x00\x03\x00\x00\x00\x02\x66\x66", b"\xff\xff\xff\xff\x00\x02\x66\x66"
        )
    ),
    "profile-too-large.jpg": read(
        lambda: saved(picture(), "JPEG", quality=95, icc_profile=_SWAPPED.ljust(MAX_PROFILE_BYTES + 1, b"\x00")),
        within=CLOSE,
    ),
}
