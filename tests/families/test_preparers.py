"""What is decoded and prepared here is what Pillow and the family's own processor make of the same file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from transformers import AutoProcessor

from skipvision.families import load_preparer
from skipvision.images import decode_image
from tests.image_catalogue import READ
from tests.image_files import picture, saved
from tests.tiny_llava import build_tiny_llava

SIDE = 32
KNOWN = {name: case for name, case in READ.items() if case.shows is not None}
PHOTOS = {
    f"{image_format}-{width}x{height}": (image_format, width, height)
    for image_format in ("JPEG", "PNG", "WEBP")
    for width, height in ((640, 480), (480, 640), (1000, 333), (33, 32), (2048, 64))
}


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llava(tmp_path_factory.mktemp(request.param), tiled=request.param == "llava_next")


def by_the_processor(processor: Any, image: Image.Image) -> np.ndarray:
    """(tiles, 3, side, side) levels of 255, from what the stock processor gives to the stock model."""
    made = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], dtype=float)
    mean, std = (np.array(x).reshape(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    return ((made * std + mean) / processor.rescale_factor).reshape(-1, 3, SIDE, SIDE)


def by_us(folder: Path, data: bytes) -> np.ndarray:
    """The same, without the line that notes the picture's size."""
    pixels = load_preparer(folder).prepare(decode_image(data))
    tiles = pixels.shape[1] // SIDE
    return pixels[:, : tiles * SIDE].reshape(3, tiles, SIDE, SIDE).swapaxes(0, 1)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder).image_processor


def test_every_readable_file_of_the_catalogue_is_prepared_as_by_the_processor(folder, processor):
    """Of what Pillow alone sees wrongly, the processor is given the picture as it should be seen."""
    for name, case in KNOWN.items():
        data = case.make()
        if case.pillow_agrees:
            image = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
        elif case.within == 0:
            image = case.shows()
        else:
            continue
        assert np.abs(by_us(folder, data) - by_the_processor(processor, image)).max() <= 0.51, name


@pytest.mark.parametrize("kind", PHOTOS)
def test_larger_pictures_are_prepared_as_by_the_processor(folder, processor, kind):
    image_format, width, height = PHOTOS[kind]
    data = saved(picture(width=width, height=height), image_format)
    theirs = by_the_processor(processor, Image.open(BytesIO(data)).convert("RGB"))
    assert np.abs(by_us(folder, data) - theirs).max() <= 0.51
