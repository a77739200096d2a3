"""AVIF and HEIC are read where they are asked for, within the same limits, and refused by name everywhere else."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from skipvision import image_decoders
from skipvision.errors import ConfigError, ImageError
from skipvision.image_decoders import check_optional
from skipvision.images import ImageLimits, decode_image
from tests.colour_profiles import SWAPPED, rgb_profile
from tests.image_files import ORIENTATION_TAG, damaged, half_transparent, picture, saved

CLOSE = 20


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    if image_format == "HEIC":
        heif = pytest.importorskip("pillow_heif")
        file = BytesIO()
        heif.from_pillow(image).save(file, quality=95, **options)
        return file.getvalue()
    return saved(image, image_format, quality=95, **options)


@pytest.fixture(params=["AVIF", "HEIC"])
def image_format(request: pytest.FixtureRequest) -> str:
    if request.param == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif")
    return str(request.param)


def asked_for(image_format: str, **limits: Any) -> ImageLimits:
    return ImageLimits(image_formats=(image_format,), **limits)


def shows(pixels: np.ndarray, image: Image.Image) -> bool:
    expected = np.asarray(image)
    if pixels.shape != expected.shape:
        return False
    height, width = pixels.shape[:2]
    quarters = np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])
    return bool(np.abs(pixels[quarters].astype(int) - expected[quarters]).max() <= CLOSE)


def refusal(data: bytes, limits: ImageLimits) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits=limits)
    return caught.value


def test_it_is_read_where_it_is_asked_for_and_nowhere_else(image_format):
    data = encoded(picture(), image_format)
    assert shows(decode_image(data, limits=asked_for(image_format)), picture())
    error = refusal(data, ImageLimits())
    assert error.code == "image_format_unsupported"
    assert f"name {image_format} in the setting image_formats" in str(error)


def test_one_does_not_open_the_door_to_the_other(image_format):
    other = {"AVIF": "HEIC", "HEIC": "AVIF"}[image_format]
    data = b"\x00\x00\x00\x18ftyp" + {"AVIF": b"avif", "HEIC": b"heic"}[other] + bytes(100)
    assert refusal(data, asked_for(image_format)).code == "image_format_unsupported"


def test_size_is_judged_before_any_pixel(image_format):
    data = encoded(picture(), image_format)
    assert refusal(data, asked_for(image_format, max_pixels=64 * 48 - 1)).code == "image_too_large"
    at = data.index(b"ispe") + 8
    claims = damaged(data, at, (30_000).to_bytes(4, "big") * 2)
    assert refusal(claims, asked_for(image_format)).code in ("image_bomb", "image_corrupt")


def test_it_is_turned_upright(image_format):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    data = encoded(picture(), image_format, exif=exif.tobytes())
    turned = picture().transpose(Image.Transpose.ROTATE_270)
    assert shows(decode_image(data, limits=asked_for(image_format)), turned)


def test_transparency_and_profile_count(image_format):
    data = encoded(half_transparent(), image_format, icc_profile=rgb_profile(SWAPPED))
    expected = Image.fromarray(np.roll(np.asarray(picture()), 1, axis=2))
    expected.paste((255, 255, 255), (0, 0, 32, 48))
    assert shows(decode_image(data, limits=asked_for(image_format)), expected)


def test_cut_anywhere_it_is_truncated_and_damaged_anywhere_it_is_a_code_or_pixels(image_format):
    data, limits = encoded(picture(), image_format), asked_for(image_format)
    for length in range(24, len(data), max(1, len(data) // 40)):
        assert refusal(data[:length], limits).code == "image_truncated", length
    random = np.random.default_rng(3)
    for _ in range(100):
        hurt = bytearray(data)
        hurt[random.integers(12, len(data))] = random.integers(256)
        with suppress(ImageError):  # nothing else is ever raised
            assert decode_image(bytes(hurt), limits=limits).ndim == 3


def test_a_format_that_is_not_optional_is_refused():
    with pytest.raises(ConfigError, match=r"may name AVIF, HEIC, .*; got 'PSD'"):
        check_optional(["PSD"])


@pytest.mark.parametrize(("name", "remedy"), [("AVIF", "pip install pillow"), ("HEIC", r"skipvision\[heif\]")])
def test_a_decoder_that_is_not_installed_is_refused_with_the_remedy(monkeypatch, name, remedy):
    monkeypatch.setattr(image_decoders, "_is_installed", lambda _: False)
    with pytest.raises(ConfigError, match=f"image_formats names {name}.*{remedy}"):
        ImageLimits(image_formats=(name,))
