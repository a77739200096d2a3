"""One image file with what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tests.image_files import picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """How a file is made, and its fate: the code that it is refused with, or the picture that it shows."""

    make: Callable[[], bytes]
    code: str | None = None
    """None: it is read."""
    shows: Callable[[], Image.Image] | None = None
    """The picture, in RGB, if it is read and known."""
    size: tuple[int, int] | None = None
    """Width and height of a picture that is read and of which nothing else is known."""
    within: int = 0
    """Levels of 255 by which the middle of each quarter may differ from the picture; 0: no pixel differs."""
    pillow_agrees: bool = True
    """Whether Pillow, asked for RGB and to turn by EXIF, gives these pixels too."""


def refused(code: str, make: Callable[[], bytes]) -> Case:
    return Case(make=make, code=code)


def read(
    make: Callable[[], bytes],
    shows: Callable[[], Image.Image] = picture,
    *,
    within: int = 0,
    pillow_agrees: bool = True,
) -> Case:
    return Case(make=make, shows=shows, within=within, pillow_agrees=pillow_agrees)


def survived(make: Callable[[], bytes], size: tuple[int, int] = (64, 48)) -> Case:
    """Damage that no decoder notices: pixels of that size come out, whatever they show."""
    return Case(make=make, size=size)
