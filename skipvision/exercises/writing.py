"""Strata of writing: fine text, needle and duplicates."""

from __future__ import annotations

import random

from skipvision.exercises.drawing import Label, Sheet, cells, paper, text_width
from skipvision.exercises.exercise import Drawn, Question, looks_at
from skipvision.exercises.words import BACKGROUNDS, CELLS, CHARACTERS, COLOURS, DOCUMENTS, FIELDS

_TEXT_COLOURS = tuple(colour for colour in COLOURS if colour not in ("yellow", "orange"))
"""Those that stand out from every background in thin strokes."""


def text(rng: random.Random) -> Drawn:
    """Short strings one to two patches high, each in a colour and a place of its own."""
    count = rng.randint(2, 5)
    colours = rng.sample(_TEXT_COLOURS, count)
    places = rng.sample([*cells(3, 2, jitter=0.1, rng=rng)], count)
    height = rng.uniform(0.07, 0.13)
    labels = []
    for colour, (_, column, x, y) in zip(colours, places, strict=True):
        words = "".join(rng.choices(CHARACTERS, k=rng.randint(2, 5)))
        half = text_width(words, height) / 2 + 0.02  # stays within its half of the picture
        x = min(max(x, column / 2 + half), (column + 1) / 2 - half)
        labels.append(Label(words, x, y, height, COLOURS[colour]))
    background = rng.choice(["white", "grey", "beige", "mint"])
    sheet = Sheet(BACKGROUNDS[background], labels=tuple(labels))

    def ask(rng: random.Random) -> Question:
        at = rng.randrange(count)
        label, (row, column, *_) = labels[at], places[at]
        where = f"at the {CELLS[row][2 * column]}" if rng.random() < 0.5 else f"in {colours[at]}"
        share = 0.7 * height  # capitals are so high
        return Question(f"What is written {where}?", label.text, share, looks=label.looks())

    return Drawn(sheet, ask)


def needle(rng: random.Random) -> Drawn:
    """A grid of characters, of which one is asked for."""
    rows, columns = rng.randint(4, 6), rng.randint(4, 6)
    height = rng.uniform(0.08, 0.12)
    singles = rng.sample(CHARACTERS, 6)  # stand in the grid once, so that their places can be asked for
    others = [character for character in CHARACTERS if character not in singles]
    filling = singles + rng.choices(others, k=rows * columns - len(singles))
    rng.shuffle(filling)
    grid = [*cells(rows, columns, jitter=0.0, rng=rng)]
    labels = tuple(Label(character, x, y, height) for character, (_, _, x, y) in zip(filling, grid, strict=True))
    lines = [(0.0, k / rows, 1.0, k / rows) for k in range(1, rows)]
    lines += [(k / columns, 0.0, k / columns, 1.0) for k in range(1, columns)]
    sheet = Sheet(paper(rng), labels=labels, lines=tuple(lines))

    def ask(rng: random.Random) -> Question:
        if rng.random() < 0.5:
            row, column = rng.randrange(rows), rng.randrange(columns)
            wanted = f"What is in row {row + 1}, column {column + 1}?"
            label = labels[row * columns + column]
            return Question(wanted, label.text, 0.7 * height, looks=label.looks())
        single = rng.choice(singles)
        row, column = divmod(filling.index(single), columns)
        answer = f"row {row + 1}, column {column + 1}"
        looks = looks_at(answer, labels[row * columns + column])
        return Question(f"Where is the {single}?", answer, 0.7 * height, looks=looks)

    return Drawn(sheet, ask)


def duplicates(rng: random.Random) -> Drawn:
    """Pages of one layout, mostly blank, which differ in a few numbers."""
    kind = rng.choice(DOCUMENTS)
    layout = random.Random(f"layout of a {kind}")  # the same for all pages of its kind
    fields = layout.sample(FIELDS, 5)
    height = 0.09
    tops = [0.27 + 0.14 * k for k in range(len(fields))]
    numbers = [str(rng.randint(10, 999)) for _ in fields]
    left, right = layout.uniform(0.22, 0.3), layout.uniform(0.6, 0.8)
    labels = [Label(kind.upper(), 0.5, 0.11, 0.11)]
    for field, number, y in zip(fields, numbers, tops, strict=True):
        labels += [Label(field.upper(), left, y, height), Label(number, right, y, height)]
    lines = ((0.08, 0.19, 0.92, 0.19), (0.08, 0.93, 0.92, 0.93))
    sheet = Sheet((255, 255, 255), labels=tuple(labels), lines=lines)

    def ask(rng: random.Random) -> Question:
        at = rng.randrange(len(fields))
        number = labels[2 + 2 * at]
        return Question(f"What number stands beside {fields[at]}?", number.text, 0.7 * height, looks=number.looks())

    return Drawn(sheet, ask)
