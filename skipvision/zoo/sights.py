"""What every patch of a picture shows, from the facts it was drawn from: what the tower is taught.

Patches are those of the shipped models. Where several things touch a patch, the one that covers most of it counts.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np

from skipvision.exercises.drawing import INK, Label, Sheet, Thing
from skipvision.exercises.words import BACKGROUNDS, CELLS, COLOURS, SHAPES, TEXTURES
from skipvision.zoo.shape import IMAGE_SIDE, PATCH_SIDE

GRID = IMAGE_SIDE // PATCH_SIDE
COLOUR_NAMES = tuple(COLOURS)
CHARACTERS = string.ascii_uppercase + string.digits
WORD = 5
"""Characters of a word that each of its patches is asked for."""
MOST_ROWS = 6
"""Of a grid of single characters."""
_TEXT = 1 + len(SHAPES)
_CAPITAL = 0.72
"""Height of a capital letter as a share of its font's size."""
_COVERED = 0.35
"""Share of a patch, or of half of one, that something covers if it is to count."""

CLASSES = {
    "shape": len(SHAPES) + 2,
    "colour": len(COLOUR_NAMES) + 1,
    "left": len(CHARACTERS) + 1,
    "right": len(CHARACTERS) + 1,
    "cell": len(CELLS) ** 2 + 1,
    "row": MOST_ROWS + 1,
    "column": MOST_ROWS + 1,
    "middle": 2,
    "background": len(BACKGROUNDS),
    "texture": len(TEXTURES),
    **{f"word{at}": len(CHARACTERS) + 1 for at in range(WORD)},
    "letter": WORD + 1,
}
"""What is told of each patch, and how many values it has; 0 is nothing, except of backgrounds and textures."""
PRESENT = len(SHAPES) * len(COLOUR_NAMES) + len(CHARACTERS)


@dataclass(frozen=True, slots=True)
class PatchTruth:
    """What each patch shows."""

    kinds: np.ndarray
    """(len(CLASSES), GRID, GRID) int64: the values of `CLASSES`, in that order. `left` and `right` are the characters
    in the halves of a patch, `word0` and so on those of the whole word; `letter` is which of them it is, from 1;
    `middle` is 1 where a thing or a character has its middle."""
    place: np.ndarray
    """(GRID, GRID, 3) float32: middle (x, y) of the thing or word, and its height, as shares of the picture."""
    present: np.ndarray
    """(PRESENT,) float32: which (colour, shape) pairs and characters are in the picture."""

    def __getitem__(self, kind: str) -> np.ndarray:
        """One of `CLASSES`: (GRID, GRID) int64."""
        values: np.ndarray = self.kinds[[*CLASSES].index(kind)]
        return values


def patch_truth(drawn: Sheet, *, stretch: float = 1.0) -> PatchTruth:
    """Derive the truth of every patch, after `photograph` with the same `stretch`."""
    made = _Truth.of(drawn, stretch)
    for thing in sorted(drawn.things, key=lambda each: -each.half_width):
        made.note_thing(thing)
    rows, columns = _lines(drawn)
    for label in drawn.labels:
        made.note_label(label, rows.get(label.y, 0), columns.get(label.x, 0))
    return PatchTruth(np.stack([made.kinds[name] for name in CLASSES]), made.place, made.present)


def patch_at(x: float, y: float, stretch: float = 1.0) -> tuple[int, int]:
    """(row, column) of the patch that shows a place of the drawn picture, see `patch_truth`."""
    row, column = (min(GRID - 1, max(0, int(_to_patches(at, stretch)))) for at in (y, x))
    return row, column


def _to_patches(at: float, stretch: float) -> float:
    return ((at - 0.5) / stretch + 0.5) * GRID


@dataclass(slots=True)
class _Truth:
    """The truth while it is collected."""

    stretch: float
    kinds: dict[str, np.ndarray]
    place: np.ndarray
    present: np.ndarray
    covered: np.ndarray
    """(GRID, GRID) float32: by how much, by what counts so far."""

    @classmethod
    def of(cls, drawn: Sheet, stretch: float) -> _Truth:
        kinds = {name: np.zeros((GRID, GRID), np.int64) for name in CLASSES}
        kinds["background"][:] = [*BACKGROUNDS.values()].index(drawn.background)
        kinds["texture"][:] = TEXTURES.index(drawn.texture)
        place = np.zeros((GRID, GRID, 3), np.float32)
        return cls(stretch, kinds, place, np.zeros(PRESENT, np.float32), np.zeros((GRID, GRID), np.float32))

    def note_thing(self, thing: Thing) -> None:
        box = (thing.x - thing.half_width, thing.y - thing.half_width, thing.share, thing.share)
        shape, colour = SHAPES.index(thing.shape), COLOUR_NAMES.index(thing.colour)
        where = self._claim(box)
        self._fill(where, shape=1 + shape, colour=1 + colour, cell=_cell(thing.x, thing.y))
        self._fill_place(where, thing.x, thing.y, thing.share)
        self.kinds["middle"][patch_at(thing.x, thing.y, self.stretch)] = 1
        self.present[shape * len(COLOUR_NAMES) + colour] = 1

    def note_label(self, label: Label, row: int, column: int) -> None:
        height = _CAPITAL * label.height
        word = [1 + CHARACTERS.index(character) for character in label.text[:WORD]]
        spelt = {f"word{at}": value for at, value in enumerate(word)}
        for at, (character, start, stop) in enumerate(label.spans(), start=1):
            where = self._claim((start, label.y - height / 2, stop - start, height))
            self._fill(where, shape=_TEXT, colour=1 + _colour(label), cell=_cell(label.x, label.y), row=row,
                       column=column, letter=min(at, WORD), **spelt)  # fmt: skip
            self._fill_place(where, label.x, label.y, height)
            value = 1 + CHARACTERS.index(character)
            for half, shift in (("left", -0.25), ("right", 0.25)):
                box = (start, label.y - height / 2, stop - start, height)
                self.kinds[half][self._overlap(box, shift=shift, width=0.5) >= 0.5] = value
            self.kinds["middle"][patch_at((start + stop) / 2, label.y, self.stretch)] = 1
            self.present[len(SHAPES) * len(COLOUR_NAMES) + value - 1] = 1

    def _claim(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """The patches that show this more than what was noted before; at least that with its middle."""
        share = self._overlap(box)
        where: np.ndarray = (share >= _COVERED) & (share > self.covered)
        where[patch_at(box[0] + box[2] / 2, box[1] + box[3] / 2, self.stretch)] = True
        self.covered[where] = share[where]
        return where

    def _overlap(self, box: tuple[float, float, float, float], *, shift: float = 0.0, width: float = 1.0) -> np.ndarray:
        """(GRID, GRID): the share of each patch inside (left, top, width, height), or of a part of it that is `width`
        patches wide and whose middle is `shift` beside the patch's."""
        left, top, across, down = box
        columns = _shared(_to_patches(left, self.stretch), across * GRID / self.stretch, shift + (1 - width) / 2, width)
        rows = _shared(_to_patches(top, self.stretch), down * GRID / self.stretch, 0.0, 1.0)
        shares: np.ndarray = rows[:, None] * columns[None, :]
        return shares

    def _fill(self, where: np.ndarray, **values: int) -> None:
        for name, value in values.items():
            self.kinds[name][where] = value

    def _fill_place(self, where: np.ndarray, x: float, y: float, height: float) -> None:
        self.place[where] = [*((at - 0.5) / self.stretch + 0.5 for at in (x, y)), height / self.stretch]


def _shared(start: float, length: float, inset: float, width: float) -> np.ndarray:
    """(GRID,): the share of [patch + inset, patch + inset + width) that lies in [start, start + length)."""
    lower = np.arange(GRID) + inset
    shared: np.ndarray = np.minimum(lower + width, start + length) - np.maximum(lower, start)
    shares: np.ndarray = shared.clip(0) / width
    return shares


def _lines(drawn: Sheet) -> tuple[dict[float, int], dict[float, int]]:
    """By y and by x, from 1: the rows and columns of a grid of single characters; else nothing."""
    if not drawn.lines or any(len(label.text) > 1 for label in drawn.labels):
        return {}, {}
    ys, xs = (sorted({*places}) for places in zip(*((label.y, label.x) for label in drawn.labels), strict=True))
    return {y: at for at, y in enumerate(ys, start=1)}, {x: at for at, x in enumerate(xs, start=1)}


def _colour(label: Label) -> int:
    """Ink is as good as black."""
    colour = COLOURS["black"] if label.colour == INK else label.colour
    return [*COLOURS.values()].index(colour)


def _cell(x: float, y: float) -> int:
    return 1 + int(y * len(CELLS)) * len(CELLS) + int(x * len(CELLS))
