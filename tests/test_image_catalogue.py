"""Every kind of image file gets its fate, whichever way it comes in, and quickly; no message tells of the program."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from skipvision.errors import ImageError
from skipvision.fetch import Fetcher, FetchPolicy
from skipvision.images import decode_image, read_image
from tests.fetch.site import Site
from tests.image_catalogue import CATALOGUE, READ, REFUSED, Case

# Pillow warns of damaged TIFF tags; damage is the subject here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MOST_SECONDS = 6.0


def fate(read: Callable[[], np.ndarray]) -> np.ndarray | ImageError:
    """What is read, or the refusal. Anything else that is raised fails the test, and so does a long wait."""
    started = time.monotonic()
    try:
        return read()
    except ImageError as error:
        return error
    finally:
        assert time.monotonic() - started < MOST_SECONDS


def code_of(result: np.ndarray | ImageError) -> str | None:
    return result.code if isinstance(result, ImageError) else None


def differs_by(pixels: np.ndarray, case: Case) -> int:
    """Levels of 255, over all pixels, or in the middle of each quarter where a lossy format blurs the edges."""
    assert case.shows is not None
    expected = np.asarray(case.shows())
    assert pixels.shape == expected.shape
    height, width = pixels.shape[:2]
    quarters = np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])
    where = quarters if case.within else ...
    return int(np.abs(pixels[where].astype(int) - expected[where]).max())


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    server = Site("127.0.0.1")
    for name, case in CATALOGUE.items():
        server.answers[f"/{name}"] = [(200, {"Content-Type": "image/jpeg"}, case.make())]
    yield server
    server.close()


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(FetchPolicy(allow_networks=("127.0.0.0/8",))) as fetcher:
        yield fetcher


def test_the_catalogue_is_large_and_holds_both_fates():
    assert len(CATALOGUE) >= 150
    assert min(len(READ), len(REFUSED)) >= 50


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_with_its_own_code_and_tells_nothing_of_the_program(name):
    refusal = fate(lambda: decode_image(REFUSED[name].make()))
    assert code_of(refusal) == REFUSED[name].code
    message = str(refusal)
    assert re.search(r"0x[0-9a-f]{4}|/|\\|PIL|BytesIO|Error|Traceback|\bat 0", message) is None
    assert message == message.strip()
    assert "\n" not in message


@pytest.mark.parametrize("name", READ)
def test_a_readable_file_shows_its_picture(name):
    case = READ[name]
    pixels = fate(lambda: decode_image(case.make()))
    assert not isinstance(pixels, ImageError), pixels
    if case.shows is None:
        assert pixels.shape[1::-1] == case.size
    else:
        assert differs_by(pixels, case) <= case.within


@pytest.mark.parametrize("name", [name for name, case in READ.items() if case.shows is not None])
def test_pillow_alone_sees_the_same_or_is_known_to_be_wrong(name):
    """What is done here beyond Pillow is done where it is needed, and nowhere else."""
    case = READ[name]
    by_pillow = ImageOps.exif_transpose(Image.open(BytesIO(case.make()))).convert("RGB")
    assert np.array_equal(np.asarray(by_pillow), decode_image(case.make())) == case.pillow_agrees


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_file_has_the_same_fate_by_path_and_by_either_address(name, tmp_path: Path, site: Site, fetcher: Fetcher):
    data = CATALOGUE[name].make()
    (tmp_path / name).write_bytes(data)
    inside = "data:image/png;base64," + base64.b64encode(data).decode()
    results = [
        fate(lambda: read_image(tmp_path / name)),
        fate(lambda: decode_image(fetcher.fetch(inside))),
        fate(lambda: decode_image(fetcher.fetch(f"{site.root}/{name}"))),
    ]
    assert [code_of(result) for result in results] == [CATALOGUE[name].code] * 3
    if CATALOGUE[name].code is None:
        expected = decode_image(data)
        assert all(np.array_equal(result, expected) for result in results)
