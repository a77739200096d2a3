"""JPEGs are decoded smaller where the model needs less: never below what it needs, never in another shape."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import page, photo
from skipvision.errors import ImageError
from skipvision.families import ImagePreparer, load_preparer
from skipvision.images import ImageLimits, decode_image
from tests.image_files import ORIENTATION_TAG, jpeg_claiming, picture, saved
from tests.tiny_llava import build_tiny_llava

PHOTO_LEVELS, TEXT_LEVELS, TEXT_MEAN = 3, 24, 2.0
"""Most that prepared pixels differ from those of the whole picture: on what cameras see, and on letters and edges."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> ImagePreparer:
    return load_preparer(build_tiny_llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> ImagePreparer:
    return load_preparer(build_tiny_llava(tmp_path_factory.mktemp("next"), tiled=True))


def fixed(height: int, width: int) -> tuple[int, int]:
    return 32, 32


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((512, 512), (64, 64)),
        ((520, 520), (65, 65)),
        ((511, 511), (511, 511)),  # no scale divides it
        ((508, 508), (127, 127)),
        ((512, 496), (128, 124)),  # an eighth would be 62 wide
        ((1024, 128), (512, 64)),
        ((126, 126), (126, 126)),
        ((32, 32), (32, 32)),
    ],
)
def test_both_sides_stay_twice_the_target_and_the_shape_stays_exactly(size, decoded):
    data = saved(picture(width=size[0], height=size[1]), "JPEG")
    assert decode_image(data, target=fixed).shape[1::-1] == decoded
    assert decode_image(data).shape[1::-1] == size, "all of it where nothing is said"


def test_the_target_is_asked_for_the_upright_picture():
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    data = saved(picture(width=512, height=256), "JPEG", exif=exif)
    asked = []

    def target(height: int, width: int) -> tuple[int, int]:
        asked.append((height, width))
        return 128, 16

    assert decode_image(data, target=target).shape[:2] == (256, 128)
    assert asked == [(512, 256)]


def test_limits_are_those_of_the_whole_picture():
    with pytest.raises(ImageError) as caught:
        decode_image(jpeg_claiming(8_000, 5_008), target=fixed)
    assert caught.value.code == "image_too_large"
    with pytest.raises(ImageError, match="at most 3 times"):
        decode_image(saved(picture(width=1024, height=256), "JPEG"), limits=ImageLimits(max_aspect=3), target=fixed)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_whole(image_format):
    data = saved(picture(width=512, height=512), image_format)
    assert decode_image(data, target=fixed).shape == (512, 512, 3)


@pytest.mark.parametrize("size", [(512, 384), (768, 768), (1024, 320), (320, 1024), (2048, 208), (800, 600)])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_photo_is_prepared_within_rounding_and_a_little(llava, tiled, size, quality):
    data = saved(photo(*size), "JPEG", quality=quality)
    for preparer in (llava, tiled):
        whole, reduced = _prepared(data, preparer)
        assert np.abs(whole - reduced).max() <= PHOTO_LEVELS


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_letters_and_edges_differ_by_more_but_within_a_bound(llava, tiled, mode):
    data = saved(page(1024, 768).convert(mode), "JPEG", quality=90)
    for preparer in (llava, tiled):
        whole, reduced = _prepared(data, preparer)
        difference = np.abs(whole - reduced)
        assert difference.max() <= TEXT_LEVELS
        assert difference.mean() <= TEXT_MEAN
        assert difference.any(), "the picture was decoded smaller"


@pytest.mark.parametrize("width", [320, 384, 640, 1000, 1600, 2048])
@pytest.mark.parametrize("height", [320, 400, 648, 1600])
def test_tiles_and_tokens_are_those_of_the_whole_picture(tiled, width, height):
    data = saved(Image.new("L", (width, height)), "JPEG")
    whole, reduced = (tiled.prepare(decode_image(data, target=target)) for target in (None, tiled.target_size))
    assert tiled.layout(whole).order().tolist() == tiled.layout(reduced).order().tolist()


@pytest.mark.parametrize("size", [(640, 480), (333, 1000), (32, 32), (10, 700)])
def test_a_preparer_resizes_to_what_it_says(llava, tiled, size, monkeypatch):
    for preparer in (llava, tiled):
        resized = _resizes(preparer, size, monkeypatch)
        height, width = preparer.target_size(size[1], size[0])
        assert height - 1 <= max(each[0] for each in resized) <= height
        assert width - 1 <= max(each[1] for each in resized) <= width


def _resizes(preparer: ImagePreparer, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(height, width) of everything that the stock processor makes of a picture by resizing."""
    processor, seen = preparer._image_processor, []
    resize = type(processor).resize

    def watched(self, *arguments, **options):
        made = resize(self, *arguments, **options)
        seen.append(tuple(made.shape[-2:]))
        return made

    monkeypatch.setattr(type(processor), "resize", watched)
    preparer.prepare(np.zeros((size[1], size[0], 3), dtype=np.uint8))
    monkeypatch.undo()
    return seen


def _prepared(data: bytes, preparer: ImagePreparer) -> tuple[np.ndarray, np.ndarray]:
    """What the model sees of the whole picture and of the smaller one; the line that notes a size is left out."""
    pixels = [preparer.prepare(decode_image(data, target=target)) for target in (None, preparer.target_size)]
    lines = pixels[0].shape[1] // 32 * 32
    return pixels[0][:, :lines].astype(int), pixels[1][:, :lines].astype(int)
