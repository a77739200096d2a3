"""Decoding: every ordinary file gives its pixels, every broken one its code, and nothing else ever happens."""

from __future__ import annotations

import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from skipvision.errors import ConfigError, ImageError
from skipvision.images import ImageCode, ImageLimits, decode_image, read_image
from tests.broken_images import (
    BROKEN,
    GOOD,
    animated,
    damaged,
    grey_16_png,
    half_transparent,
    oriented,
    picture,
    png_chunk,
    png_claiming,
    png_of_size,
    saved,
    transparent_palette_png,
    write_broken,
    write_good,
)

# Pillow warns of damaged TIFF tags; damage is the subject here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

WHITE = [255, 255, 255]
LOSSLESS = ("PNG", "BMP", "TIFF")
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


def looks_like(pixels: np.ndarray, image: Image.Image, tolerance: int = 12) -> bool:
    """Equal but for what a lossy format may change, measured in the middle of each quarter."""
    expected = np.asarray(image.convert("RGB")).astype(int)
    if pixels.shape != expected.shape:
        return False
    height, width = pixels.shape[:2]
    rows, columns = np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])
    return bool(np.abs(pixels[rows, columns] - expected[rows, columns]).max() <= tolerance)


# What is refused


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_own_code(name):
    code, make = BROKEN[name]
    assert refusal(make()).code == code


@pytest.mark.parametrize("name", BROKEN)
def test_a_refusal_tells_nothing_of_the_program(name):
    message = str(refusal(BROKEN[name][1]()))
    assert re.search(r"0x[0-9a-f]{4}|/|\\|PIL|BytesIO|Error|Traceback|\bat 0", message) is None
    assert message == message.strip()
    assert "\n" not in message


def test_a_refusal_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(refusal(b"")))
    assert (error.code, str(error)) == ("image_empty", "the image has zero bytes")


def test_every_code_is_one_of_the_published_ones_and_each_has_a_file_that_shows_it():
    shown = {code for code, _ in BROKEN.values()} | {"image_missing", "image_unreadable"}
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
@given(head=st.sampled_from([b"", *(make()[:24] for _, make in BROKEN.values())]), tail=st.binary(max_size=200))
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


@pytest.mark.parametrize("image_format", ALL_FORMATS)
def test_each_format_shows_the_picture(image_format):
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    pixels = decode_image(saved(picture(5), image_format, **options))
    assert looks_like(pixels, picture(5), tolerance=0 if image_format in LOSSLESS else 12)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_taken_sideways_is_turned_upright(orientation, image_format):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    upright = picture().transpose(turns[orientation]) if orientation > 1 else picture()
    assert looks_like(decode_image(oriented(orientation, image_format)), upright)


def test_a_compressed_tiff_is_turned_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture(), "TIFF", compression="tiff_lzw", exif=exif)
    assert looks_like(decode_image(data), picture().transpose(Image.Transpose.ROTATE_270), tolerance=0)


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00" + b"\xff" * 40]
)
def test_damaged_metadata_does_not_cost_the_picture(exif):
    assert looks_like(decode_image(saved(picture(), "JPEG", exif=exif, quality=95)), picture())


def test_an_orientation_that_does_not_exist_is_ignored():
    assert looks_like(decode_image(oriented(99)), picture())


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_what_hides_under_transparency_becomes_white(image_format):
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    pixels = decode_image(saved(half_transparent(), image_format, **options))
    assert (pixels[:, :32] == 255).all()
    assert np.array_equal(pixels[:, 32:], np.asarray(picture())[:, 32:])


def test_half_transparency_lets_half_of_the_white_through():
    pixels = decode_image(saved(Image.new("RGBA", (4, 4), (200, 0, 100, 128)), "PNG"))
    assert np.abs(pixels[0, 0].astype(int) - [227, 127, 177]).max() <= 1


def test_a_transparent_palette_colour_becomes_white():
    pixels = decode_image(transparent_palette_png())
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[-1, -1].tolist() != WHITE


def test_a_transparent_colour_of_an_rgb_or_grey_png_becomes_white():
    for image, hidden in [(picture(), picture().getpixel((0, 0))), (Image.new("L", (4, 4), 7), 7)]:
        assert decode_image(saved(image, "PNG", transparency=hidden))[0, 0].tolist() == WHITE


def test_grey_with_alpha_is_laid_on_white():
    image = Image.new("LA", (4, 4), (0, 0))
    assert decode_image(saved(image, "PNG"))[0, 0].tolist() == WHITE


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut(image_format):
    values = np.array([[0, 256, 257, 40_000, 65_534, 65_535]], dtype=np.uint16)
    pixels = decode_image(saved(Image.fromarray(values), image_format))
    assert pixels[0, :, 0].tolist() == [0, 1, 1, 156, 255, 255]


def test_sixteen_bits_in_the_other_byte_order_are_the_same():
    values = np.array([[0, 40_000, 65_535]], dtype=np.uint16)
    little = saved(Image.fromarray(values), "TIFF")
    big = BytesIO()
    Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes()).save(big, "TIFF")
    assert np.array_equal(decode_image(big.getvalue()), decode_image(little))


def test_a_transparent_grey_of_sixteen_bits_becomes_white():
    data = grey_16_png(np.array([[1_000, 2_000]], dtype=np.uint16))
    header_end = 8 + 12 + 13
    data = data[:header_end] + png_chunk(b"tRNS", b"\x03\xe8") + data[header_end:]
    assert decode_image(data)[0].tolist() == [WHITE, [8, 8, 8]]


def test_print_colours_come_out_as_seen():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode_image(saved(image, "JPEG", quality=95))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert decode_image(saved(image, "TIFF"))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=4)


def test_lab_colours_come_out_as_seen():
    grey = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 0, 0, 0]))
    assert decode_image(saved(grey, "TIFF"))[0].tolist() == [pytest.approx(WHITE, abs=2), pytest.approx([0] * 3, abs=2)]


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame(image_format):
    assert looks_like(decode_image(animated(image_format)), picture(0), tolerance=16)


def test_a_colour_profile_that_is_nonsense_is_ignored():
    assert looks_like(decode_image(saved(picture(), "PNG", icc_profile=b"nonsense" * 40)), picture(), tolerance=0)


def test_a_wrong_checksum_behind_the_pixels_is_forgiven():
    data = saved(picture(), "PNG")
    assert np.array_equal(decode_image(damaged(data, len(data) - 4, b"\x00" * 4)), decode_image(data))


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


def test_a_folder_of_good_and_broken_files_is_told_apart(tmp_path):
    broken, good = write_broken(tmp_path), write_good(tmp_path, 40)
    outcomes = {path.name: outcome(path.read_bytes()) for path in tmp_path.iterdir()}
    assert {name for name, result in outcomes.items() if not isinstance(result, str)} == set(good)
    assert {name: result for name, result in outcomes.items() if isinstance(result, str)} == broken
