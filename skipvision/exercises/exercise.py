"""What an exercise is: a picture, a question about it, the answer, and how another answer is graded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from PIL import Image

from skipvision.exercises.words import COLOURS, SHAPES, SIZES

Grading = Literal["exact", "set"]
"""`exact`: the answer, in any case and punctuation. `set`: F1 over the objects that are named, see `named_objects`."""

_NAMED = re.compile(rf"\b({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_NOT_WORDS = re.compile(r"[^a-z0-9]+")


class Picture(Protocol):
    """A picture as facts."""

    def render(self, side: int) -> Image.Image:
        """Draw it as a square RGB picture of `side` pixels."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """Where in a picture a part of an answer is read: who learns to answer may be shown where to look."""

    start: int
    stop: int
    """The part is answer[start:stop]."""
    places: tuple[tuple[float, float], ...]
    """(x, y) as shares of the picture's side; one counts as much as another."""

    def moved(self, by: int) -> Look:
        """The same, so many characters later in an answer."""
        return replace(self, start=self.start + by, stop=self.stop + by)


Looks = tuple[Look, ...]


class Placed(Protocol):
    """Something with its middle at (x, y)."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...


def looks_at(answer: str, *things: Placed) -> Looks:
    """All of the answer is read at these things."""
    return (Look(0, len(answer), tuple((thing.x, thing.y) for thing in things)),)


def joined(parts: Iterable[tuple[str, Looks]], between: str = ", ") -> tuple[str, Looks]:
    """One answer after the other, as a longer one."""
    answer, looks = "", list[Look]()
    for at, (part, its_looks) in enumerate(parts):
        answer += between if at else ""
        looks += [look.moved(len(answer)) for look in its_looks]
        answer += part
    return answer, (*looks,)


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a picture."""

    text: str
    answer: str
    share: float
    """How large what is asked about is: its height as a share of the picture's side."""
    grading: Grading = "exact"
    looks: Looks = ()


@dataclass(frozen=True, slots=True)
class Exercise:
    """One question of one stratum; a pure function of stratum and seed."""

    stratum: str
    seed: int
    picture: Picture
    question: str
    answer: str
    share: float
    """How large what is asked about is: its height as a share of the picture's side."""
    grading: Grading
    looks: Looks = ()

    def grade(self, answer: str) -> float:
        """How right an answer is, from 0 to 1."""
        if self.grading == "set":
            return set_f1(named_objects(answer), named_objects(self.answer))
        return float(normalised(answer) == normalised(self.answer))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture, and what can be asked about it."""

    picture: Picture
    ask: Callable[[random.Random], Question]
    """A question about it, another one each time."""
    also: Sequence[Question] = ()
    """More of them, for who asks several about one picture; `ask` never gives these."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """One kind of exercise: what its pictures are like, and what is asked about them."""

    name: str
    about: str
    draw: Callable[[random.Random], Drawn]


def normalised(answer: str) -> str:
    """An answer's words, without case, punctuation and leading article."""
    return _NOT_WORDS.sub(" ", answer.lower()).strip().removeprefix("the ").removeprefix("a ").removeprefix("an ")


def named_objects(answer: str) -> list[tuple[str, str, str]]:
    """The (size, colour, shape) triples that an answer names, with repeats."""
    return _NAMED.findall(answer.lower())


def set_f1(said: list[tuple[str, str, str]], true: list[tuple[str, str, str]]) -> float:
    """Harmonic mean of precision and recall over objects, repeats counted; 1 where both are empty."""
    if not said and not true:
        return 1.0
    left = list(true)
    hits = 0
    for each in said:
        if each in left:
            left.remove(each)
            hits += 1
    return 2 * hits / (len(said) + len(true))
