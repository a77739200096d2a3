"""Exercises side by side in one picture, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap

from PIL import Image, ImageDraw

from skipvision.exercises.drawing import INK
from skipvision.exercises.exercise import Exercise

COLUMNS = 4
_MARGIN, _LINE = 8, 13
"""Pixels around a picture, and from one line of text to the next."""
_ANSWER = (180, 0, 0)
_LETTER = 6.2
"""Pixels of a letter of Pillow's default font, on average."""


def contact_sheet(exercises: Sequence[Exercise], *, side: int) -> Image.Image:
    """Draw pictures of `side` pixels in rows of `COLUMNS`, under each its questions and, in red, their answers.

    Args:
        exercises: at least one; those about one picture stand next to each other.
    """
    tiles = [_tile([*asked], side) for _, asked in groupby(exercises, key=lambda each: (each.stratum, each.seed))]
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (min(len(tiles), COLUMNS) * width, rows * height), "white")
    for at, tile in enumerate(tiles):
        sheet.paste(tile, (at % COLUMNS * width, at // COLUMNS * height))
    return sheet


def _tile(asked: Sequence[Exercise], side: int) -> Image.Image:
    """One picture with what is asked about it."""
    letters = max(12, int(side / _LETTER))
    said = [(line, ink) for each in asked for text, ink in ((each.question, INK), (each.answer, _ANSWER))
            for line in wrap(text, letters)]  # fmt: skip
    tile = Image.new("RGB", (side + 2 * _MARGIN, side + 3 * _MARGIN + _LINE * len(said)), "white")
    tile.paste(asked[0].picture.render(side), (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(tile)
    for at, (line, ink) in enumerate(said):
        draw.text((_MARGIN, side + 2 * _MARGIN + at * _LINE), line, fill=ink)
    return tile
