"""Strata of flat shapes on a background: global, counting, spatial, list and composition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from skipvision.exercises.drawing import Sheet, Thing, cells, paper, scatter
from skipvision.exercises.exercise import Drawn, Question, joined, looks_at
from skipvision.exercises.words import BACKGROUNDS, CELLS, COLOURS, DIRECTIONS, NUMBERS, SHAPES, SIZES, TEXTURES
from skipvision.scenes import plural

_EVERYTHING = 1.0
"""Height of what is asked about where that is the whole picture."""
_ANY = "any"
"""What everything in a picture is counted as."""
_CLEAR = 0.09
"""Shares of the side by which two places or distances differ at least where a question is about which is more."""


def global_(rng: random.Random) -> Drawn:
    """What the picture is like as a whole."""
    background, texture = rng.choice([*BACKGROUNDS]), rng.choice(TEXTURES)
    most_shape, most_colour = rng.choice(SHAPES), rng.choice([*COLOURS])
    others = [shape for shape in SHAPES if shape != most_shape]
    shapes = [most_shape] * 4 + rng.choices(others[:2], k=2) + rng.sample(others[2:], rng.randint(0, 1))
    colours = [most_colour] * 4 + rng.sample([colour for colour in COLOURS if colour != most_colour], len(shapes) - 4)
    rng.shuffle(colours)
    things = scatter(rng, [(*pair, rng.uniform(0.05, 0.08)) for pair in zip(shapes, colours, strict=True)])
    sheet = Sheet(BACKGROUNDS[background], things, texture=texture)

    def any_of(rng: random.Random) -> Question:
        there = rng.random() < 0.5
        kind = rng.choice(sorted({*shapes} if there else {*SHAPES} - {*shapes}))
        found = [thing.share for thing in things if thing.shape == kind]
        share = max(found) if there else min(thing.share for thing in things)  # who denies has looked at everything
        looks = looks_at("yes", *[thing for thing in things if thing.shape == kind]) if there else ()
        return Question(f"Is there any {kind}?", "yes" if there else "no", share, looks=looks)

    def ask(rng: random.Random) -> Question:
        certain = [
            ("What colour is the background?", background),
            ("Is the background plain, striped or dotted?", texture),
            ("Which shape is there most of?", most_shape),
            ("Which colour is there most of?", most_colour),
        ]
        at = rng.randrange(len(certain) + 1)
        return any_of(rng) if at == len(certain) else Question(*certain[at], _EVERYTHING)

    return Drawn(sheet, ask)


def counting(rng: random.Random) -> Drawn:
    """How many there are of one kind, among others; larger or smaller, crowded or not."""
    wanted, count = rng.choice(SHAPES), rng.randint(1, 9)
    half = rng.uniform(0.022, 0.055)
    colour = rng.choice([*COLOURS])
    distractors = [rng.choice([shape for shape in SHAPES if shape != wanted]) for _ in range(rng.randint(0, 6))]
    kinds = [wanted] * count + distractors
    painted = [colour if rng.random() < 0.5 else rng.choice([*COLOURS]) for _ in kinds]
    things = scatter(rng, [(shape, c, half * rng.uniform(0.85, 1.15)) for shape, c in zip(kinds, painted, strict=True)])
    of_shape, of_colour = _how_many(things, wanted), _how_many(things, colour)
    assert of_shape is not None, "at most nine are drawn"

    def ask(rng: random.Random) -> Question:
        return of_shape if of_colour is None or rng.random() < 0.7 else of_colour

    there = (*SHAPES, *COLOURS, _ANY)  # a question for all that is not there would teach to say zero
    others = [_how_many(things, what) for what in there if any(what in _called(thing) for thing in things)]
    also = [question for question in others if question is not None and question not in (of_shape, of_colour)]
    return Drawn(Sheet(paper(rng), things), ask, also)


def _how_many(things: Sequence[Thing], what: str) -> Question | None:
    """About a shape, a colour or `_ANY`; None where there are more than a word is known for."""
    hits = [thing for thing in things if what in _called(thing)]
    if len(hits) >= len(NUMBERS):
        return None
    named = "shapes" if what == _ANY else _plurally(what, "shapes")
    answer, share = NUMBERS[len(hits)], min(thing.share for thing in hits or things)
    return Question(f"How many {named} are there?", answer, share, looks=looks_at(answer, *hits) if hits else ())


def _called(thing: Thing) -> tuple[str, ...]:
    """By what it is counted and listed."""
    return thing.shape, thing.colour, size_of(thing), _ANY


def spatial(rng: random.Random) -> Drawn:
    """Where things are to each other and in the picture."""
    things = scatter(rng, _different(rng, rng.randint(4, 6), lambda: rng.uniform(0.045, 0.075)))
    sheet = Sheet(paper(rng), things)

    def ask(rng: random.Random) -> Question:
        asked = rng.sample([_ask_direction, _ask_nearest, _ask_place], 3)
        return next(question for each in asked if (question := each(rng, things)) is not None)

    # Somewhere in the picture everything can be asked about: of unclear places another picture is drawn.
    if _ask_place(rng, things) is None or _ask_direction(rng, things) is None:
        return spatial(rng)
    return Drawn(sheet, ask)


def _ask_direction(rng: random.Random, things: Sequence[Thing]) -> Question | None:
    pairs = [(one, other, way) for one in things for other in things if (way := direction(one, other)) is not None]
    ways = sorted({way for *_, way in pairs})
    if not ways:
        return None
    way = rng.choice(ways)
    one, other, _ = rng.choice([pair for pair in pairs if pair[2] == way])
    text = f"Is the {one.name} left of, right of, above or below the {other.name}?"
    return Question(text, way, min(one.share, other.share), looks=looks_at(way, one, other))


def direction(one: Thing, other: Thing) -> str | None:
    """Where `one` is, seen from `other`; None where that is not clear."""
    dx, dy = one.x - other.x, one.y - other.y
    if max(abs(dx), abs(dy)) < 2 * _CLEAR or not (abs(dx) > 2 * abs(dy) or abs(dy) > 2 * abs(dx)):
        return None
    left, right, above, below = DIRECTIONS
    return (left if dx < 0 else right) if abs(dx) > abs(dy) else (above if dy < 0 else below)


def _ask_nearest(rng: random.Random, things: Sequence[Thing]) -> Question | None:
    clear = []
    for thing in things:
        near, next_near, *_ = sorted((other for other in things if other is not thing), key=thing.distance)
        if thing.distance(next_near) - thing.distance(near) > _CLEAR:
            clear.append((thing, near))
    if not clear:
        return None
    thing, near = rng.choice(clear)
    share, looks = min(thing.share, near.share), looks_at(near.name, near)
    return Question(f"What is nearest to the {thing.name}?", near.name, share, looks=looks)


def _ask_place(rng: random.Random, things: Sequence[Thing]) -> Question | None:
    clear = [thing for thing in things if all(_from_border(at) > _CLEAR / 2 for at in (thing.x, thing.y))]
    if not clear:
        return None
    thing = rng.choice(clear)
    place = CELLS[int(thing.y * 3)][int(thing.x * 3)]
    return Question(f"Where in the picture is the {thing.name}?", place, thing.share, looks=looks_at(place, thing))


def _from_border(at: float) -> float:
    """How far from the lines that cut the picture into thirds."""
    return min(abs(at - 1 / 3), abs(at - 2 / 3))


def listing(rng: random.Random) -> Drawn:
    """Everything in the picture, by size, colour and shape: the long answer."""
    count = rng.randint(3, 7)
    sizes = [rng.choice([*SIZES]) for _ in range(count)]
    pairs = [(rng.choice(SHAPES), rng.choice([*COLOURS])) for _ in range(count)]
    things = _in_reading_order(_placed_in_cells(rng, [(*p, SIZES[s]) for p, s in zip(pairs, sizes, strict=True)]))
    sheet = Sheet(paper(rng), things)
    parts = [(what, [thing for thing in things if what in _called(thing)]) for what in (*SHAPES, *COLOURS, *SIZES)]
    also = [_list_all(_plurally(what, "objects"), part) for what, part in parts if 0 < len(part) < count]
    return Drawn(sheet, lambda rng: _list_all("objects", things), also)


def _list_all(named: str, things: Sequence[Thing]) -> Question:
    answer, looks = joined((name := f"{size_of(thing)} {thing.name}", looks_at(name, thing)) for thing in things)
    share = min(thing.share for thing in things)
    return Question(f"List all {named} with size and colour.", answer, share, "set", looks)


def _plurally(what: str, things: str) -> str:
    """A shape, or things that are called so."""
    return plural(what) if what in SHAPES else f"{what} {things}"


def size_of(thing: Thing) -> str:
    """`small` or `large`."""
    return min(SIZES, key=lambda size: abs(SIZES[size] - thing.half_width))


def composition(rng: random.Random) -> Drawn:
    """What follows from two things together, or from one by way of another."""
    specs = _different(rng, 7, lambda: SIZES[rng.choice([*SIZES])])
    things = _placed_in_cells(rng, specs)
    sheet = Sheet(paper(rng), things)

    def ask(rng: random.Random) -> Question:
        return rng.choice([_ask_same, _ask_larger, _ask_neighbour])(rng, things)

    return Drawn(sheet, ask)


def _ask_same(rng: random.Random, things: Sequence[Thing]) -> Question:
    """About two things that are named by shape and place in the picture, since colours are what is asked."""
    shapes = Counter(thing.shape for thing in things)
    named = [thing for thing in things if shapes[thing.shape] == 1]
    same = rng.random() < 0.5
    pairs = [(a, b) for a in named for b in named if a is not b]
    fitting = [(a, b) for a, b in pairs if (a.colour == b.colour) == same]
    if len(fitting) in (0, len(pairs)):  # asked only where both answers could be true, so that both are as frequent
        return _ask_neighbour(rng, things)
    one, other = rng.choice(fitting)
    text = f"Do the {one.shape} and the {other.shape} have the same colour?"
    answer = "yes" if same else "no"
    return Question(text, answer, min(one.share, other.share), looks=looks_at(answer, one, other))


def _ask_larger(rng: random.Random, things: Sequence[Thing]) -> Question:
    pairs = [(a, b) for a in things for b in things if size_of(a) != size_of(b)]
    if not pairs:
        return _ask_neighbour(rng, things)
    one, other = rng.choice(pairs)
    larger = max(one, other, key=lambda thing: thing.half_width)
    text, share = f"Which is larger, the {one.name} or the {other.name}?", min(one.share, other.share)
    return Question(text, larger.name, share, looks=looks_at(larger.name, larger))


def _ask_neighbour(rng: random.Random, things: Sequence[Thing]) -> Question:
    """The colour or shape of what stands beside something: first find that, then look beside it."""
    pairs = [(a, b, way) for a in things for b in things if (way := neighbour(a, b)) is not None]
    beside, anchor, way = rng.choice(pairs)
    where = {"left": "left of", "right": "right of"}.get(way, way)
    share = min(beside.share, anchor.share)
    if rng.random() < 0.5:
        wanted, answer = f"What colour is the shape just {where} the {anchor.name}?", beside.colour
    else:
        wanted, answer = f"Which shape is just {where} the {anchor.name}?", beside.shape
    return Question(wanted, answer, share, looks=looks_at(answer, beside))


def neighbour(one: Thing, other: Thing) -> str | None:
    """Where `one` is, if it stands in a cell of the 3 x 3 grid beside that of `other`."""
    row, column = (int(one.y * 3) - int(other.y * 3), int(one.x * 3) - int(other.x * 3))
    return {(0, -1): "left", (0, 1): "right", (-1, 0): "above", (1, 0): "below"}.get((row, column))


def _different(rng: random.Random, count: int, half_width: Callable[[], float]) -> list[tuple[str, str, float]]:
    """Shapes and colours of which no pair comes twice."""
    pairs = rng.sample([(shape, colour) for shape in SHAPES for colour in COLOURS], count)
    return [(*pair, half_width()) for pair in pairs]


def _placed_in_cells(rng: random.Random, specs: Sequence[tuple[str, str, float]]) -> tuple[Thing, ...]:
    """Each in a cell of its own of a 3 x 3 grid."""
    places = rng.sample([*cells(3, 3, jitter=0.2, rng=rng)], len(specs))
    return tuple(
        Thing(shape, colour, x, y, half) for (shape, colour, half), (_, _, x, y) in zip(specs, places, strict=True)
    )


def _in_reading_order(things: Sequence[Thing]) -> tuple[Thing, ...]:
    return tuple(sorted(things, key=lambda thing: (int(thing.y * 3), int(thing.x * 3))))
