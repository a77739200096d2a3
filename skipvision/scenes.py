"""Procedurally rendered scenes: pictures whose caption and answers are known exactly.

A scene is one to a few flat shapes and perhaps a short text, each in its own cell of a 3 x 3 grid over a plain
background. It is a pure function of its seed, so a training set, a held-out set and an example file are all named
by integers. Nothing here knows a model.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (214, 39, 40),
    "green": (34, 139, 60),
    "blue": (31, 84, 214),
    "yellow": (240, 200, 20),
    "purple": (140, 60, 190),
    "orange": (255, 127, 14),
    "black": (25, 25, 25),
}
BACKGROUNDS = {"white": (255, 255, 255), "grey": (205, 205, 208), "pink": (250, 218, 226)}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
SIZES = {"small": (0.070, 0.085), "large": (0.125, 0.145)}
"""Half-width of an object as a share of the picture's side: (least, most)."""
CELLS = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
LETTERS = "ACEHKLMNPRTUXZ"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
CAPTION_PROMPTS = ("Describe the image.", "What is in this image?", "Caption this image.")
TEXT_HEIGHT = 0.17
"""Font size of rendered text as a share of the picture's side."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One flat shape; places and sizes are shares of the picture's side."""

    shape: str
    colour: str
    size: str
    cell: tuple[int, int]
    """(row, column) in the 3 x 3 grid."""
    x: float
    y: float
    half_width: float

    @property
    def phrase(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Text:
    """A short word in black capitals, centred at (x, y)."""

    letters: str
    cell: tuple[int, int]
    x: float
    y: float

    @property
    def phrase(self) -> str:
        return f"the text {self.letters}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in one picture. `shapes` stand in reading order: top row first, left to right."""

    background: str
    shapes: tuple[Shape, ...]
    text: Text | None

    def caption(self) -> str:
        """Every object with its place, in reading order."""
        return _join([f"{thing.phrase} at the {_place(thing.cell)}" for thing in self.in_reading_order()])

    def questions(self, rng: random.Random, count: int) -> list[tuple[str, str]]:
        """Draw so many different question kinds, or all there are, and give (question, answer) pairs."""
        kinds = [
            self._ask_colour, self._ask_count, self._ask_count_of, self._ask_existence, self._ask_place,
            self._ask_text, self._ask_background, self._ask_where,
        ]  # fmt: skip
        return [kind(rng) for kind in rng.sample(kinds, min(count, len(kinds)))]

    def render(self, side: int = 256) -> Image.Image:
        """Draw the scene as a square RGB picture of `side` pixels."""
        scale = 2  # drawn at twice the side and reduced, so that edges are smooth
        picture = Image.new("RGB", (side * scale, side * scale), BACKGROUNDS[self.background])
        draw = ImageDraw.Draw(picture)
        for shape in self.shapes:
            x, y, r = (value * side * scale for value in (shape.x, shape.y, shape.half_width))
            draw_shape(draw, shape.shape, COLOURS[shape.colour], x, y, r)
        if self.text:
            font = ImageFont.load_default(size=TEXT_HEIGHT * side * scale)
            centre = (self.text.x * side * scale, self.text.y * side * scale)
            draw.text(centre, self.text.letters, fill=(0, 0, 0), font=font, anchor="mm")
        return picture.reduce(scale)

    def in_reading_order(self) -> list[Shape | Text]:
        """Everything, as a caption names it."""
        things: list[Shape | Text] = [*self.shapes, *([self.text] if self.text else [])]
        return sorted(things, key=lambda thing: thing.cell)

    def _ask_colour(self, rng: random.Random) -> tuple[str, str]:
        kinds = [shape.shape for shape in self.shapes]
        unique = [shape for shape in self.shapes if kinds.count(shape.shape) == 1]
        if not unique:
            return self._ask_count_of(rng)
        shape = rng.choice(unique)
        return f"What colour is the {shape.shape}?", shape.colour

    def _ask_count(self, rng: random.Random) -> tuple[str, str]:
        return "How many shapes are there?", NUMBERS[len(self.shapes)]

    def _ask_count_of(self, rng: random.Random) -> tuple[str, str]:
        kind = rng.choice([*(shape.shape for shape in self.shapes), rng.choice(SHAPES)])
        return f"How many {plural(kind)} are there?", NUMBERS[sum(s.shape == kind for s in self.shapes)]

    def _ask_existence(self, rng: random.Random) -> tuple[str, str]:
        shape = rng.choice(self.shapes)
        wanted = (shape.colour, shape.shape)
        if rng.random() < 0.5:
            wanted = (rng.choice([*COLOURS]), rng.choice([shape.shape, *SHAPES]))
        there = any((s.colour, s.shape) == wanted for s in self.shapes)
        article = "an" if wanted[0] == "orange" else "a"
        return f"Is there {article} {wanted[0]} {wanted[1]}?", "yes" if there else "no"

    def _ask_place(self, rng: random.Random) -> tuple[str, str]:
        things = self.in_reading_order()
        cell = rng.choice(things).cell if rng.random() < 0.8 else (rng.randrange(3), rng.randrange(3))
        found = next((thing.phrase for thing in things if thing.cell == cell), "nothing")
        return f"What is at the {_place(cell)}?", found

    def _ask_where(self, rng: random.Random) -> tuple[str, str]:
        names = [(shape.colour, shape.shape) for shape in self.shapes]
        unique = [shape for shape in self.shapes if names.count((shape.colour, shape.shape)) == 1]
        if not unique:
            return self._ask_place(rng)
        shape = rng.choice(unique)
        return f"Where is the {shape.colour} {shape.shape}?", f"at the {_place(shape.cell)}"

    def _ask_text(self, rng: random.Random) -> tuple[str, str]:
        return "What text is written?", self.text.letters if self.text else "none"

    def _ask_background(self, rng: random.Random) -> tuple[str, str]:
        return "What colour is the background?", self.background


def scene(seed: int, *, shapes: Sequence[int] = (1, 2, 3), text_share: float = 0.4) -> Scene:
    """Make the scene that `seed` names.

    Args:
        seed: any integer; the same one always gives the same scene.
        shapes: how many shapes a scene may have, each count equally likely; at most 6.
        text_share: share of scenes with a text of two or three letters.
    """
    rng = random.Random(f"scene {seed}")
    cells = rng.sample([(row, column) for row in range(3) for column in range(3)], 7)
    drawn = sorted((_draw_at_random(rng, cells.pop()) for _ in range(rng.choice(shapes))), key=lambda s: s.cell)
    text = None
    if rng.random() < text_share:
        cell = cells.pop()
        letters = "".join(rng.sample(LETTERS, rng.choice((2, 3))))
        text = Text(letters, cell, *(_middle(at) + rng.uniform(-0.015, 0.015) for at in (cell[1], cell[0])))
    return Scene(rng.choice([*BACKGROUNDS]), tuple(drawn), text)


def named_shapes(answer: str) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that an answer names, sorted, with repeats: what a caption is graded by."""
    colours, shapes = "|".join(COLOURS), "|".join(SHAPES)
    return sorted(re.findall(rf"\b({colours}) ({shapes})\b", answer))


def _draw_at_random(rng: random.Random, cell: tuple[int, int]) -> Shape:
    size = rng.choice([*SIZES])
    half_width = rng.uniform(*SIZES[size])
    slack = 1 / 6 - half_width - 0.01  # stays inside its cell
    x, y = (_middle(at) + rng.uniform(-slack, slack) for at in (cell[1], cell[0]))
    return Shape(rng.choice(SHAPES), rng.choice([*COLOURS]), size, cell, x, y, half_width)


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, fill: tuple[int, int, int], x: float, y: float, r: float) -> None:
    """Draw one of `SHAPES` around (x, y) with half-width `r`, all in pixels."""
    match shape:
        case "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        case "square":
            a = r * 0.88
            draw.rectangle((x - a, y - a, x + a, y + a), fill=fill)
        case "triangle":
            draw.polygon([(x, y - r), (x + r, y + r * 0.8), (x - r, y + r * 0.8)], fill=fill)
        case "diamond":
            draw.polygon([(x, y - r), (x + r * 0.75, y), (x, y + r), (x - r * 0.75, y)], fill=fill)
        case "cross":
            arm = r * 0.33
            draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
            draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        case "star":
            turns = [(math.pi * k / 5, r if k % 2 == 0 else r * 0.42) for k in range(10)]
            draw.polygon([(x + d * math.sin(a), y - d * math.cos(a)) for a, d in turns], fill=fill)


def _middle(index: int) -> float:
    return (index + 0.5) / 3


def _place(cell: tuple[int, int]) -> str:
    return CELLS[cell[0]][cell[1]]


def plural(shape: str) -> str:
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def _join(phrases: Sequence[str]) -> str:
    *most, last = phrases
    return f"{', '.join(most)} and {last}" if most else last
