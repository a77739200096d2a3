"""Decoding: pixels or a code whatever the bytes, limits that belong to the call, files that can be read or not.

What becomes of every known kind of file stands in `image_catalogue`, and is tested in `test_image_catalogue`.
"""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from skipvision.errors import ConfigError, ImageError
from skipvision.images import ImageCode, ImageLimits, decode_image, read_image
from tests.image_catalogue import REFUSED
from tests.image_files import GOOD, picture, png_claiming, png_of_size, saved

# Pillow warns of damaged TIFF tags; damage is the subject here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ALL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def refusal(data: bytes, limits: ImageLimits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits=limits or ImageLimits())
    return caught.value


def outcome(data: bytes) -> np.ndarray | str:
    """The pixels, or the code of the refusal. Anything else that is raised fails the test."""
    try:
        return decode_image(data)
    except ImageError as error:
        return error.code


# What is refused


def test_a_refusal_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(refusal(b"")))
    assert (error.code, str(error)) == ("image_empty", "the image has zero bytes")


def test_every_code_is_one_of_the_published_ones_and_each_has_a_file_that_shows_it():
    shown = {case.code for case in REFUSED.values()} | {"image_missing", "image_unreadable"}
    assert shown == set(get_args(ImageCode))


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_a_file_cut_anywhere_is_truncated_or_whole_but_never_damaged(image_format):
    data = saved(picture(), image_format)
    whole = decode_image(data)
    for length in range(20, len(data), max(1, len(data) // 400)):
        result = outcome(data[:length])
        is_right = result == "image_truncated" if isinstance(result, str) else np.array_equal(result, whole)
        assert is_right, f"cut to {length} of {len(data)} bytes"


@pytest.mark.parametrize("image_format", [*ALL_FORMATS, "BIG_TIFF", "LZW_TIFF"])
def test_random_damage_gives_pixels_or_a_code_and_nothing_else(image_format):
    options = {"BIG_TIFF": {"big_tiff": True}, "LZW_TIFF": {"compression": "tiff_lzw"}}.get(image_format, {})
    data = saved(picture(), image_format.rpartition("_")[2], **options)
    random = np.random.default_rng(7)
    outcomes = set()
    for end in [60, len(data)] * 150:  # in the header, where most decisions are, and anywhere
        hurt = bytearray(data)
        for _ in range(3):
            hurt[random.integers(4, end)] = random.integers(256)
        result = outcome(bytes(hurt))
        outcomes.add(result if isinstance(result, str) else "pixels")
    assert outcomes <= {"pixels", *get_args(ImageCode)}
    assert len(outcomes) > 1


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from([b"", *(case.make()[:24] for case in REFUSED.values())]), tail=st.binary(max_size=200))
def test_any_bytes_at_all_give_pixels_or_a_code(head, tail):
    result = outcome(head + tail)
    assert result in get_args(ImageCode) if isinstance(result, str) else result.ndim == 3


# The limits


def test_size_is_judged_by_the_header_before_any_pixel():
    refusals = [refusal(png_claiming(width, height)).code for width, height in [(8_000, 5_001), (16_385, 2_000)]]
    assert refusals == ["image_too_large", "image_too_large"]
    assert refusal(png_claiming(8_000, 5_000)).code == "image_corrupt", "within the limits, so it is decoded: no pixels"


def test_sizes_on_the_limit_are_accepted():
    limits = ImageLimits(max_pixels=2_000, max_side=200, max_aspect=20)
    assert decode_image(png_of_size(200, 10), limits=limits).shape == (10, 200, 3)
    for width, height, code in [
        (201, 11, "image_too_large"),
        (199, 11, "image_too_large"),
        (21, 1, "image_bad_aspect"),
    ]:
        assert refusal(png_of_size(width, height), limits).code == code


def test_a_file_over_the_byte_limit_is_refused_unread():
    data = saved(picture(), "PNG")
    assert decode_image(data, limits=ImageLimits(max_bytes=len(data))).shape == (48, 64, 3)
    assert refusal(data, ImageLimits(max_bytes=len(data) - 1)).code == "image_too_large"


def test_a_limit_below_one_is_refused_with_its_name():
    with pytest.raises(ConfigError, match="max_side must be at least 1; got 0"):
        ImageLimits(max_side=0)


def test_limits_belong_to_the_call_and_not_to_the_process(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(png_of_size(100, 100)).shape == (100, 100, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refusal(png_claiming(30_000, 30_000)).code == "image_bomb"


def test_decoding_changes_nothing_in_the_process(recwarn):
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_image(png_of_size(6_000, 6_000))
    refusal(png_of_size(10_000, 9_000))
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    assert after == before
    assert not recwarn.list, "the size between Pillow's warning and its error is judged here, in silence"


def test_threads_decode_side_by_side():
    files = [make(1) for make in GOOD.values()]
    alone = [decode_image(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(decode_image, files * 10))
    assert all(np.array_equal(pixels, alone[i % len(files)]) for i, pixels in enumerate(together))


# What is seen


@pytest.mark.parametrize("kind", GOOD)
def test_an_ordinary_file_gives_its_pixels(kind):
    pixels = decode_image(GOOD[kind](3))
    assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


# Files


def test_a_file_is_read_by_its_path(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(picture()))
    assert np.array_equal(read_image(str(tmp_path / "a.png")), np.asarray(picture()))


def missing(folder: Path) -> Path:
    return folder / "nothing.png"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"x")
    return folder / "file" / "a.png"


def with_a_zero_byte(folder: Path) -> Path:
    return folder / "a\x00.png"


def dangling_link(folder: Path) -> Path:
    (folder / "link.png").symlink_to(folder / "gone.png")
    return folder / "link.png"


def the_folder(folder: Path) -> Path:
    return folder


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def looping_link(folder: Path) -> Path:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder / "loop.png"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (missing, "image_missing"),
        (below_a_file, "image_missing"),
        (with_a_zero_byte, "image_missing"),
        (dangling_link, "image_missing"),
        (the_folder, "image_unreadable"),
        (pipe, "image_unreadable"),
        (looping_link, "image_unreadable"),
    ],
)
def test_a_path_without_a_readable_file_has_its_code_and_keeps_its_name_to_itself(tmp_path, make, code):
    path = make(tmp_path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.code == code
    assert path.name not in str(caught.value)


def test_endless_devices_are_not_read():
    with pytest.raises(ImageError) as caught:
        read_image("/dev/zero")
    assert caught.value.code == "image_unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.code == "image_unreadable"


def test_a_file_over_the_byte_limit_is_not_read_to_its_end(tmp_path):
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "sparse.png", limits=ImageLimits(max_bytes=1000))
    assert caught.value.code == "image_too_large"
