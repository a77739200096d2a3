"""The closed vocabulary of exercises."""

from __future__ import annotations

from skipvision.scenes import BACKGROUNDS as SCENE_BACKGROUNDS
from skipvision.scenes import COLOURS, LETTERS, SHAPES

BACKGROUNDS = {**SCENE_BACKGROUNDS, "beige": (240, 228, 200), "mint": (208, 240, 222)}
TEXTURES = ("plain", "striped", "dotted")
SIZES = {"small": 0.045, "large": 0.085}
"""Half-width of an object as a share of the picture's side, where its size is asked for."""
DIGITS = "23456789"
CHARACTERS = LETTERS + DIGITS
"""None of them looks like another at the height of one patch."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = ("left", "right", "above", "below")
CELLS = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
FIELDS = ("total", "tax", "date", "room", "seat", "gate", "page", "item")
DOCUMENTS = ("receipt", "ticket", "form", "table")

__all__ = ["BACKGROUNDS", "CELLS", "CHARACTERS", "COLOURS", "DIGITS", "DIRECTIONS", "DOCUMENTS", "FIELDS", "LETTERS",
           "NUMBERS", "SHAPES", "SIZES", "TEXTURES"]  # fmt: skip
