"""Pictures as facts, and how they are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import hypot

from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from skipvision.exercises.exercise import Look, Looks
from skipvision.exercises.words import BACKGROUNDS, COLOURS
from skipvision.scenes import draw_shape

_SMOOTHING = 2
"""Pictures are drawn so many times as large and reduced, so that edges are smooth."""
_TRIES = 200
INK = (25, 25, 25)


@dataclass(frozen=True, slots=True)
class Thing:
    """One flat shape; places and sizes are shares of the picture's side."""

    shape: str
    colour: str
    x: float
    y: float
    half_width: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def share(self) -> float:
        """Its height."""
        return 2 * self.half_width

    def distance(self, other: Thing) -> float:
        """Between centres."""
        return hypot(self.x - other.x, self.y - other.y)


@dataclass(frozen=True, slots=True)
class Label:
    """A short text; `height` is its font's, a share of the picture's side, and (x, y) its middle."""

    text: str
    x: float
    y: float
    height: float
    colour: tuple[int, int, int] = INK

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """Each character with its left and right edge."""
        widths = [text_width(character, self.height) for character in self.text]
        edges = [*accumulate(widths, initial=self.x - sum(widths) / 2)]
        yield from zip(self.text, edges[:-1], edges[1:], strict=True)

    def looks(self) -> Looks:
        """Each character is read where it stands."""
        middles = [(left + right) / 2 for _, left, right in self.spans()]
        return tuple(Look(at, at + 1, ((x, self.y),)) for at, x in enumerate(middles))


@dataclass(frozen=True, slots=True)
class Sheet:
    """A background with things, labels and lines on it."""

    background: tuple[int, int, int]
    things: tuple[Thing, ...] = ()
    labels: tuple[Label, ...] = ()
    lines: tuple[tuple[float, float, float, float], ...] = ()
    """From (x, y) to (x, y)."""
    texture: str = "plain"

    def render(self, side: int) -> Image.Image:
        """See `Picture.render`."""
        size = side * _SMOOTHING
        picture = Image.new("RGB", (size, size), self.background)
        draw = ImageDraw.Draw(picture)
        self._draw_texture(draw, size)
        for x0, y0, x1, y1 in self.lines:
            draw.line([x0 * size, y0 * size, x1 * size, y1 * size], fill=(150, 150, 150), width=max(1, size // 200))
        for thing in self.things:
            draw_shape(
                draw, thing.shape, COLOURS[thing.colour], thing.x * size, thing.y * size, thing.half_width * size
            )
        for label in self.labels:
            font = _font(round(label.height * size))
            draw.text((label.x * size, label.y * size), label.text, fill=label.colour, font=font, anchor="mm")
        return picture.reduce(_SMOOTHING)

    def _draw_texture(self, draw: ImageDraw.ImageDraw, size: int) -> None:
        ink = tuple(channel - 28 for channel in self.background)
        places = [size * (k + 0.5) / 12 for k in range(12)]
        if self.texture == "striped":
            for at in places:
                draw.line([at, 0, at, size], fill=ink, width=size // 40)
        elif self.texture == "dotted":
            radius = size / 70
            for x in places:
                for y in places:
                    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)


def scatter(rng: random.Random, wanted: Sequence[tuple[str, str, float]]) -> tuple[Thing, ...]:
    """Things of (shape, colour, half-width) at random places that do not touch; they shrink where it is too crowded."""
    shrunk = 1.0
    while True:
        for _ in range(_TRIES // 20):
            placed = _placed(rng, [(shape, colour, half * shrunk) for shape, colour, half in wanted])
            if placed is not None:
                return placed
        shrunk *= 0.9


def _placed(rng: random.Random, wanted: Sequence[tuple[str, str, float]]) -> tuple[Thing, ...] | None:
    things: list[Thing] = []
    for shape, colour, half in sorted(wanted, key=lambda each: -each[2]):  # the large ones first, while there is room
        for _ in range(_TRIES):
            x, y = (rng.uniform(half + 0.01, 0.99 - half) for _ in range(2))
            thing = Thing(shape, colour, x, y, half)
            if all(thing.distance(other) > 1.3 * (half + other.half_width) for other in things):
                things.append(thing)
                break
        else:
            return None
    return tuple(things)


def cells(rows: int, columns: int, *, jitter: float, rng: random.Random) -> Iterator[tuple[int, int, float, float]]:
    """(row, column, x, y) of the middles of a grid over the picture, each moved by up to `jitter` of its cell."""
    for row in range(rows):
        for column in range(columns):
            dx, dy = (rng.uniform(-jitter, jitter) for _ in range(2))
            yield row, column, (column + 0.5 + dx) / columns, (row + 0.5 + dy) / rows


def paper(rng: random.Random) -> tuple[int, int, int]:
    """The colour of a background that nobody asks about."""
    return rng.choice([*BACKGROUNDS.values()])


def text_width(text: str, height: float) -> float:
    """How wide a label is, as a share of the picture's side."""
    return _font(1000).getlength(text) / 1000 * height


@cache
def _font(size: int) -> FreeTypeFont:
    font = ImageFont.load_default(size=max(1, size))
    assert isinstance(font, FreeTypeFont), "Pillow is built with FreeType"
    return font
